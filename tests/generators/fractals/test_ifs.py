"""The fractal stream: no empty images, effects of its options, and errors that name bad arguments."""

import hashlib

import numpy as np
import pytest

from wildfern.generators import make_stream

SMALL = {"size": 32, "points": 1000, "classes": 100, "seed": 5}


def digest(images):
    return hashlib.blake2b(np.ascontiguousarray(images).tobytes(), digest_size=16).hexdigest()


# As everywhere (see test_streams): these change only by intent.
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


@pytest.mark.parametrize("render", ["graded", "binary", "patch"])
def test_no_image_is_empty(render):
    """Every image on black has lit pixels, for many seeds, indices and placements."""
    for seed in range(20):
        stream = make_stream("ifs", size=32, points=1000, seed=seed, render=render, background=False, classes=150)
        images = stream.batch(np.arange(150) + seed * 10**12).images
        lit = (images.max(-1) > 0).sum((1, 2))
        assert lit.min() >= 32 * 32 // 64


def test_a_binary_image_with_every_pixel_lit_is_graded():
    plain = {"color": False, "background": False, "blur": False}
    images = make_stream("ifs", size=8, points=2000, render="binary", **plain).batch(np.arange(300)).images[..., 0]
    full = (images > 0).all((1, 2))
    assert full.sum() == 2
    assert all(len(np.unique(image)) > 8 for image in images[full])
    assert all(np.unique(image).tolist() == [0, 255] for image in images[~full])


def test_rare_outer_points_do_not_shrink_the_attractor_to_a_few_pixels():
    """Attractors with rare outer points: without the zoom, a few in ten thousand light only one or two pixels."""
    stream = make_stream("ifs", size=32, points=1000, background=False, blur=False, classes=20_000)
    lit = (stream.batch(np.arange(20_000)).images.max(-1) > 0).sum((1, 2))
    assert lit.min() >= 32 * 32 // 64


def test_images_vary_within_a_class_and_between_classes():
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


def test_options_have_their_effects():
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
        ({"points": 10**9}, "points must lie between 1 and 10000000, not 1000000000"),
        ({"points": 0}, "points must lie between 1"),
        ({"classes": 0}, "classes must lie between 1"),
        ({"maps": (4, 2)}, r"maps must be in order, least first: \(2, 4\), not \(4, 2\)"),
        ({"maps": 3}, r"maps must be a pair, least and most, such as \(2, 8\), not 3"),
        ({"maps": (1, 4)}, "the least of maps must lie between 2 and 8, not 1"),
        ({"jitter": "svdd"}, "jitter='svdd' is not known: did you mean 'svd'"),
        ({"render": "oil"}, "render='oil' is not known: choose one of 'graded', 'binary', 'patch'"),
        ({"sampling": "even"}, "sampling='even' is not known: choose one of 'sequential', 'uniform'"),
        ({"color": "yes"}, "color must be true or false, not 'yes'"),
    ],
)
def test_bad_arguments_are_named_in_the_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_stream("ifs", **arguments)
