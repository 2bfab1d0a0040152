"""Elementary functions against the math library."""

import math

import numpy as np

from wildfern.generators import elementary
from wildfern.generators.counter_rng import key


def apply(function, *columns):
    return np.array([function(*map(float, row)) for row in zip(*columns, strict=True)])


def test_exponential_logarithm_and_power():
    x = np.linspace(-700, 700, 5001)
    np.testing.assert_allclose(apply(elementary.exp, x), np.exp(x), rtol=1e-13)
    np.testing.assert_allclose(apply(elementary.log, np.exp(x)), x, rtol=1e-14, atol=1e-15)
    near_one = 1 + np.linspace(-1e-3, 1e-3, 1001)
    np.testing.assert_allclose(apply(elementary.log, near_one), np.log(near_one), rtol=1e-12, atol=1e-18)
    base, exponent = np.linspace(0.01, 50, 300), np.linspace(-4, 4, 300)
    np.testing.assert_allclose(apply(elementary.power, base, exponent), base**exponent, rtol=1e-13)
    assert elementary.power(0.0, 2.0) == 0.0
    assert elementary.exp(-1e9) > 0.0
    assert math.isfinite(elementary.exp(1e9))


def test_circular_functions():
    turns = np.linspace(-5, 5, 4001)
    got = np.array([elementary.cos_sin(t) for t in turns])
    np.testing.assert_allclose(got[:, 0], np.cos(2 * np.pi * turns), atol=3e-15)
    np.testing.assert_allclose(got[:, 1], np.sin(2 * np.pi * turns), atol=3e-15)
    x, y = np.cos(2 * np.pi * turns) * (1 + turns**2), np.sin(2 * np.pi * turns) * (1 + turns**2)
    np.testing.assert_allclose(apply(elementary.angle, x, y), np.arctan2(y, x) / (2 * np.pi), atol=1e-9)
    axes = [(0, 0, 0), (1, 0, 0), (0, 1, 0.25), (-1, 0, 0.5), (0, -1, -0.25)]
    assert [elementary.angle(float(x), float(y)) for x, y, _ in axes] == [turns for *_, turns in axes]


def test_normal_numbers_have_the_moments_of_a_standard_normal():
    drawn = np.array([elementary.normal(np.uint64(key("normal", 0)), np.uint64(2 * i)) for i in range(20_000)])
    error = 4 / math.sqrt(len(drawn))  # four standard errors of each moment: 1, √2 and √96
    assert abs(drawn.mean()) < error
    assert abs((drawn**2).mean() - 1) < error * math.sqrt(2)
    assert abs((drawn**4).mean() - 3) < error * math.sqrt(96)
