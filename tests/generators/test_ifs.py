"""The fractal stream: a sample is a function of its index, never empty, and bad arguments are named."""

import hashlib
import inspect
import os
import pickle
import subprocess
import sys
from typing import Literal, get_args, get_origin

import numpy as np
import pytest

from wildfern.generators import STREAMS, make_stream

SMALL = {"size": 32, "points": 1000, "classes": 100, "seed": 5}


def digest(images):
    return hashlib.blake2b(np.ascontiguousarray(images).tobytes(), digest_size=16).hexdigest()


def test_a_sample_depends_on_its_index_only():
    stream = make_stream("ifs", **SMALL)
    whole = stream.batch(np.array([3, 7, 9, 10**15, 2**63 - 1, -4]))
    assert whole.images.shape == (6, 32, 32, 3)
    assert whole.images.dtype == np.uint8
    assert whole.labels.tolist() == [3, 7, 9, 0, (2**63 - 1) % 100, 96]
    for position, index in enumerate((3, 7, 9, 10**15, 2**63 - 1, -4)):
        np.testing.assert_array_equal(stream.batch([index]).images[0], whole.images[position])
    np.testing.assert_array_equal(stream.batch([9, 3]).images, whole.images[[2, 0]])
    assert len({digest(image) for image in whole.images}) == 6


@pytest.mark.parametrize(("size", "points"), [(32, 1000), (45, 777), (224, 20_000)])
def test_threads_change_nothing(size, points):
    indices = np.arange(100, 137)
    one = make_stream("ifs", size=size, points=points).batch(indices)
    for threads in (2, 5):
        several = make_stream("ifs", size=size, points=points, threads=threads)
        np.testing.assert_array_equal(several.batch(indices).images, one.images)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(several)).batch(indices).images, one.images)


def test_another_process_draws_the_same():
    program = (
        "import hashlib, numpy as np; from wildfern.generators import make_stream;"
        f"s = make_stream('ifs', threads=2, **{SMALL});"
        "print(hashlib.blake2b(s.batch(np.arange(40, 60)).images.tobytes(), digest_size=16).hexdigest())"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == digest(make_stream("ifs", **SMALL).batch(np.arange(40, 60)).images)


# No libm, no reordering, no fused operations: these bytes hold on every machine, and change only by intent.
GRAY = {"size": 32, "points": 500, "jitter": "basic", "render": "binary", "color": False, "blur": False}
FROZEN = [
    (SMALL, "41efb01850ef3f760335d5b3bf9fc644"),
    (
        {"size": 65, "points": 5000, "maps": (2, 8), "jitter": "sval", "render": "patch"},
        "19b507042f7254e802442299aa77f90b",
    ),
    (GRAY, "13a65765f74069cc603c4963805e92c3"),
]


@pytest.mark.parametrize(("arguments", "expected"), FROZEN)
def test_bytes_are_frozen(arguments, expected):
    assert digest(make_stream("ifs", **arguments).batch(np.arange(8)).images) == expected


@pytest.mark.slow
def test_a_processor_without_vector_extensions_draws_the_same(tmp_path):
    """Compiled for the plainest processor of this kind, without fused multiply-add, the frozen bytes come out too."""
    program = (
        "import hashlib, numpy as np; from wildfern.generators import make_stream\n"
        f"for arguments, expected in {FROZEN}:\n"
        "    images = make_stream('ifs', **arguments).batch(np.arange(8)).images\n"
        "    assert hashlib.blake2b(images.tobytes(), digest_size=16).hexdigest() == expected, arguments\n"
    )
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=os.environ | plain, check=True)


@pytest.mark.parametrize("render", ["graded", "binary", "patch"])
def test_no_picture_is_empty(render):
    """On black, something is lit in every picture, for many seeds, indices and placements."""
    for seed in range(20):
        stream = make_stream("ifs", size=32, points=1000, seed=seed, render=render, background=False, classes=150)
        images = stream.batch(np.arange(150) + seed * 10**12).images
        lit = (images.max(-1) > 0).sum((1, 2))
        assert lit.min() >= 32 * 32 // 64


def test_points_far_out_do_not_shrink_the_rest_to_a_speck():
    """Attractors with rare outer points: without a closer look, a few in ten thousand light one or two pixels."""
    stream = make_stream("ifs", size=32, points=1000, background=False, blur=False, classes=20_000)
    lit = (stream.batch(np.arange(20_000)).images.max(-1) > 0).sum((1, 2))
    assert lit.min() >= 32 * 32 // 64


def test_pictures_vary_within_a_class_and_between_classes():
    plain = {"background": False, "placement": False, "blur": False, "color": False, "render": "binary"}
    stream = make_stream("ifs", size=32, points=5000, classes=20, jitter="svd", **plain)
    masks = stream.batch(np.arange(200)).images[..., 0].reshape(10, 20, -1) > 0

    def overlap(a, b):
        return ((a & b).sum(-1) / (a | b).sum(-1)).mean()

    within, between = overlap(masks[:-1], masks[1:]), overlap(masks[:, :-1], masks[:, 1:])
    assert between + 0.1 < within < 0.95
    frozen = make_stream("ifs", size=32, points=5000, classes=20, jitter="none", **plain)
    masks = frozen.batch(np.arange(200)).images[..., 0].reshape(10, 20, -1) > 0
    assert overlap(masks[:-1], masks[1:]) > within + 0.05


def test_switches_do_what_they_say():
    batch = {
        name: make_stream("ifs", **SMALL, **{name: False}).batch(np.arange(30)).images
        for name in ("color", "background", "placement", "blur")
    }
    batch["all"] = make_stream("ifs", **SMALL).batch(np.arange(30)).images
    assert (batch["color"] == batch["color"][..., :1]).all()
    assert (batch["background"] == 0).all(-1).mean() > 0.5
    assert (batch["all"] == 0).all(-1).mean() < 0.01
    edges = {name: np.abs(np.diff(images.astype(int), axis=2)).mean() for name, images in batch.items()}
    assert edges["blur"] > 1.3 * edges["all"]
    black = (
        make_stream("ifs", **SMALL, background=False, blur=False, placement=False).batch(np.arange(30)).images.max(-1)
        > 0
    )
    assert black.any(1)[:, [0, -1]].all()
    assert black.any(2)[:, [0, -1]].all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must lie between 8 and 2048, not 0"),
        ({"size": 32.5}, "size must be a whole number, not 32.5"),
        ({"points": 10**9}, "points must lie between 1 and 10000000, not 1000000000"),
        ({"points": 0}, "points must lie between 1"),
        ({"classes": 0}, "classes must lie between 1"),
        ({"seed": "x"}, "seed must be a whole number, not 'x'"),
        ({"maps": (4, 2)}, r"maps must be in order, least first: \(2, 4\), not \(4, 2\)"),
        ({"maps": 3}, r"maps must be a pair, least and most, such as \(2, 8\), not 3"),
        ({"maps": (1, 4)}, "the least of maps must lie between 2 and 8, not 1"),
        ({"jitter": "svdd"}, "jitter='svdd' is not known: did you mean 'svd'"),
        ({"render": "oil"}, "render='oil' is not known: choose one of 'graded', 'binary', 'patch'"),
        ({"threads": 0}, "threads must lie between 1"),
        ({"siez": 32}, "the stream 'ifs' has no argument 'siez': did you mean 'size'"),
    ],
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_stream("ifs", **arguments)


def test_unknown_streams_and_indices_are_named():
    with pytest.raises(ValueError, match="stream='isf' is not known: did you mean 'ifs'"):
        make_stream("isf")
    with pytest.raises(ValueError, match=r"indices must be a row of integers, not float64 of shape \[2\]"):
        make_stream("ifs", **SMALL).batch([0.5, 1.0])
    empty = make_stream("ifs", **SMALL).batch([])
    assert empty.images.shape == (0, 32, 32, 3)


@pytest.mark.parametrize("name", STREAMS)
def test_signatures_are_plain_keywords(name):
    for parameter in inspect.signature(STREAMS[name]).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty
        if get_origin(parameter.annotation) is Literal:
            assert parameter.default in get_args(parameter.annotation)
