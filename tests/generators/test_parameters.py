"""The parameters of rendered images, against what the generators document."""

import math
import pickle

import numpy as np
import pytest

from wildfern.generators import make_stream
from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.generators.fractals.ifs_sampler import sample_systems
from wildfern.generators.stream import STANDARD_SAMPLES


def standardized(values):
    mean = [math.fsum(column) / len(column) for column in values.T]
    squares = ((values - mean) ** 2).T
    deviation = [math.sqrt(math.fsum(column) / len(column)) for column in squares]
    return (values - mean) / deviation


def test_fractals_against_numpys_singular_values():
    stream = make_stream("ifs", size=16, seed=4, classes=10**6, jitter="none")
    first = np.arange(STANDARD_SAMPLES)
    systems, counts = sample_systems(4, first, maps=(2, 4))
    plain = []
    for system, n in zip(systems, counts, strict=True):
        maps = [matrix[:, :2] for matrix in system[:n]]
        values = np.array([np.linalg.svd(matrix, compute_uv=False) for matrix in maps])
        areas = np.array([abs(np.linalg.det(matrix)) for matrix in maps])
        plain.append([n, *values.mean(axis=0), areas.sum(), areas.max() / areas.sum()])
    np.testing.assert_allclose(stream.parameters(first), standardized(np.array(plain)), rtol=1e-5, atol=2e-5)


def test_jitter_moves_the_parameters_of_an_instance():
    jittered, drawn = (
        make_stream("ifs", size=16, classes=50, jitter=j)._parameters(np.arange(100)) for j in ("sval", "none")
    )
    np.testing.assert_array_equal(drawn[:50], drawn[50:])
    assert (jittered[:50, 1:] != jittered[50:, 1:]).all(axis=1).mean() > 0.9
    np.testing.assert_array_equal(jittered[:, 0], drawn[:, 0])


def test_exponents_of_noise():
    stream = make_stream("spectrum", size=64, seed=1, exponent=(0.0, 4.0))
    keys = fold(fold(np.array([key("spectrum", 1)], np.uint64), 1), np.arange(STANDARD_SAMPLES))
    plain = 4.0 * uniform(fold(keys, 0), 2)
    np.testing.assert_allclose(
        stream.parameters(np.arange(STANDARD_SAMPLES)), standardized(plain), rtol=1e-5, atol=1e-6
    )
    # Steps between neighbors along an axis are the smaller, the larger its exponent.
    images = stream.batch(np.arange(200)).images[..., 1].astype(float)
    for axis, exponents in ((2, plain[:200, 0]), (1, plain[:200, 1])):
        steps = np.abs(np.diff(images, axis=axis)).mean(axis=(1, 2)) / images.std(axis=(1, 2))
        assert np.corrcoef(np.log(steps), exponents)[0, 1] < -0.8


@pytest.mark.parametrize("name", ["ifs", "spectrum"])
def test_parameters_are_a_function_of_the_index(name):
    stream = make_stream(name, size=16)
    some = stream.parameters([3, 10**12, 3])
    again = pickle.loads(pickle.dumps(make_stream(name, size=16, threads=2)))
    np.testing.assert_array_equal(again.parameters([10**12]), some[1:2])
    np.testing.assert_array_equal(some[0], some[2])
    assert some.dtype == np.float32
    assert some.shape == (3, len(stream.parameter_names))
    assert (some[0] != make_stream(name, size=16, seed=1).parameters([3])[0]).any()


def test_a_constant_parameter_is_0():
    assert (make_stream("ifs", size=16, maps=(3, 3)).parameters(np.arange(20))[:, 0] == 0).all()


def test_streams_without_parameters_say_so():
    with pytest.raises(ValueError, match="the stream 'dead_leaves' has no parameters"):
        make_stream("dead_leaves", size=16).parameters([0])
