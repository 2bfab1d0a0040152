"""Tests of every generator: a sample is a function of its index, no image is blank, and errors name the bad argument."""

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

#: Arguments that make a generator fast.
QUICK = {
    "ifs": {"points": 1000, "classes": 100},
    "ifs_multi": {"points": 1000, "classes": 100},
    "ifs_pair": {"points": 1000, "classes": 100},
    "fractaldb": {"points": 1500, "classes": 4},
    "one_fractal": {"points": 1500, "classes": 20},
    "neural_fractal": {"classes": 10, "iterations": (4, 8)},
    "flame": {"points": 2000, "classes": 30},
}
NAMES_IN_DIGEST = {"paired_images": "partners"}  # the field's name when the digests were taken
each_generator = pytest.mark.parametrize("name", STREAMS)


def quick(name, **arguments):
    return make_stream(name, **{"size": 32, "seed": 5} | QUICK.get(name, {}) | arguments)


def digest(batch):
    """Digest of all arrays of a batch, little-endian and in order."""
    hashed = hashlib.blake2b(digest_size=16)
    for field, array in batch.arrays().items():
        hashed.update(f"{NAMES_IN_DIGEST.get(field, field)} {array.dtype} {array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return hashed.hexdigest()


def assert_equal(batch, other, rows=slice(None)):
    for (field, array), expected in zip(batch.arrays().items(), other.arrays().values(), strict=True):
        np.testing.assert_array_equal(array, expected[rows], err_msg=field)


@each_generator
def test_a_sample_depends_on_its_index_only(name):
    stream, indices = quick(name), [3, 7, 9, 10**15, 2**63 - 1, -4]
    whole = stream.batch(np.array(indices))
    assert whole.images.shape == (6, 32, 32, 3)
    assert whole.images.dtype == np.uint8
    for array in whole.arrays().values():
        assert len(array) == 6
    for position, index in enumerate(indices):
        assert_equal(stream.batch([index]), whole, [position])
    assert_equal(stream.batch([9, 3]), whole, [2, 0])
    assert len({image.tobytes() for image in whole.images}) == 6
    assert len(stream.batch([]).images) == 0
    if whole.labels is not None and whole.labels.ndim == 1:
        assert whole.labels.tolist() == [index % stream.num_classes for index in indices]
    other_seed = quick(name, seed=6).batch([3, 7])
    assert not (other_seed.images == whole.images[:2]).all((1, 2, 3)).any()


@each_generator
@pytest.mark.parametrize("size", [8, 33, 90])
def test_threads_and_copies_change_nothing(name, size):
    indices = np.arange(100, 123)
    one = quick(name, size=size).batch(indices)
    several = quick(name, size=size, threads=3)
    assert_equal(several.batch(indices), one)
    assert_equal(pickle.loads(pickle.dumps(several)).batch(indices), one)


@each_generator
def test_concurrent_calls_change_nothing(name):
    from concurrent.futures import ThreadPoolExecutor

    stream, expected = quick(name, threads=2), quick(name).batch(np.arange(32))
    with ThreadPoolExecutor(4) as pool:
        for part, batch in enumerate(pool.map(stream.batch, np.split(np.arange(32), 8))):
            assert_equal(batch, expected, slice(4 * part, 4 * part + 4))


# Kernels use no math library, no reordering and no fused operations, so these digests hold on every machine.
FROZEN = {
    "ifs": "91c8dd651ba08d9740fc5a4f046a366c",
    "ifs_multi": "0b56cf6dfddb4e3e26764ac0975e1402",
    "ifs_pair": "f03f7294e4c0a58310164c890416c84b",
    "fractaldb": "93d7009885c814d4bf4d92539200e8ad",
    "one_fractal": "be493921334798d0d27d8f17dd7bc7fc",
    "contours": "112e6473245b728da99b1527658f3bb1",
    "lsystem": "59f0ea5c0bb5844b389adaee5f370aee",
    "dead_leaves": "58d59bf8640fd84644b9c7c2c13ddec3",
    "spectrum": "b8b688c0e124a59d1e6da6aff78fe58d",
    "texture": "87ba1c28cdb6b9b752d14bf6c7b067d1",
    "neural_fractal": "5935fb0bd3e6102b90396787386cd3b3",
    "flame": "8f8783c5be1df54dc9a1702abf4a189b",
}


@each_generator
def test_bytes_are_frozen(name):
    assert digest(quick(name).batch(np.arange(8))) == FROZEN[name]


PROGRAM = """
import importlib.util, sys, numpy as np
spec = importlib.util.spec_from_file_location("streams", {file!r})
streams = importlib.util.module_from_spec(spec)
spec.loader.exec_module(streams)
for name in sys.argv[1:]:
    print(name, streams.digest(streams.quick(name, threads=2).batch(np.arange(8))))
"""


def rendered_elsewhere(environment, names=tuple(STREAMS)):
    command = [sys.executable, "-c", PROGRAM.format(file=__file__), *names]
    run = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return dict(line.split() for line in run.stdout.splitlines())


def test_another_process_renders_the_same():
    assert rendered_elsewhere({}) == FROZEN


# One generator for each kind of arithmetic, since compiling is what takes the time: an iterated map, which fused operations
# change most; distance fields; shapes with gradients; transforms. `test_architecture` sees to it
# that no kernel allows the compiler to fuse or reorder.
PLAIN = ("ifs", "contours", "dead_leaves", "spectrum")


@pytest.mark.slow
def test_a_cpu_without_vector_extensions_renders_the_same(tmp_path):
    """Kernels compiled for a generic CPU of this architecture, without fused multiply-add, give the frozen bytes."""
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    assert rendered_elsewhere(plain, PLAIN) == {name: FROZEN[name] for name in PLAIN}


@each_generator
@pytest.mark.parametrize("size", [8, 32, 224])
def test_no_image_is_blank(name, size):
    """Every image and every paired image has more than one color, over distant seeds and indices."""
    for seed in range(4):
        stream = quick(name, size=size, seed=seed)
        batch = stream.batch(np.arange(32 if size > 100 else 150) + seed * 10**12)
        for images in (batch.images, batch.paired_images):
            if images is not None:
                flat = images.reshape(len(images), -1, 3)
                assert (flat != flat[:, :1]).any((1, 2)).all()


@each_generator
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must lie between 8 and 2048, not 0"),
        ({"size": 32.5}, "size must be a whole number, not 32.5"),
        ({"seed": "x"}, "seed must be a whole number, not 'x'"),
        ({"threads": 0}, "threads must lie between 1"),
        ({"siez": 32}, "the stream '{name}' has no argument 'siez': did you mean 'size'"),
    ],
)
def test_bad_arguments_are_named_in_the_error(name, arguments, message):
    with pytest.raises(ValueError, match=message.format(name=name)):
        make_stream(name, **arguments)


@each_generator
def test_bad_indices_are_named_in_the_error(name):
    with pytest.raises(
        ValueError, match=r"indices must be a one-dimensional array of integers, not float64 of shape \[2\]"
    ):
        quick(name).batch([0.5, 1.0])
    with pytest.raises(
        ValueError, match=r"indices must be a one-dimensional array of integers, not int64 of shape \[1, 2\]"
    ):
        quick(name).batch([[1, 2]])


def test_unknown_streams_are_named_in_the_error():
    with pytest.raises(ValueError, match="stream='isf' is not known: did you mean 'ifs'"):
        make_stream("isf")


@each_generator
def test_signatures_are_plain_keywords(name):
    for parameter in inspect.signature(STREAMS[name]).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty
        assert parameter.annotation is not inspect.Parameter.empty
        if get_origin(parameter.annotation) is Literal:
            assert parameter.default in get_args(parameter.annotation)
    assert STREAMS[name].name == name


def test_all_generators_are_listed():
    """Every subclass of Stream with a name is in STREAMS."""
    from wildfern.generators import Stream

    def subclasses(parent):
        for child in parent.__subclasses__():
            yield from subclasses(child)
            if child.__module__.startswith("wildfern.generators") and "name" in vars(child):
                yield child

    assert set(subclasses(Stream)) == set(STREAMS.values())
