"""Patterns and functions of values against their formulas in double precision."""

import numpy as np
import pytest

from wildfern.generators.texture import values as value

F = np.float32
RNG = np.random.default_rng(2)
X, Y = (RNG.uniform(-2, 2, 400).astype(F) for _ in range(2))
V, W, Z = (np.concatenate([[0, 1, 0.5], RNG.uniform(0, 1, 200)]).astype(F) for _ in range(3))
RADIUS, TURNS = np.hypot(X, Y).astype(float), np.arctan2(Y, X) / (2 * np.pi)


def wave(turns, sharpness):
    return np.clip(0.5 + 0.5 * sharpness * np.sin(2 * np.pi * turns), 0, 1)


def made(pattern, *arguments):
    out = np.full(X.size, np.nan, F)
    pattern(*arguments, out)
    return out


def changed(function, *arguments):
    v = V.copy()
    function(v, *arguments)
    return v


def test_waves_along_an_axis_the_radius_and_the_angle():
    for sharpness in (1.0, 6.0):
        s = F(sharpness)
        close = {"atol": 3e-5 * sharpness}
        np.testing.assert_allclose(
            made(value.stripes, X, F(2), s, F(0.3)), wave(2.0 * X.astype(float) + 0.3, sharpness), **close
        )
        np.testing.assert_allclose(
            made(value.rings, X, Y, F(1.5), s, F(0.1)), wave(1.5 * RADIUS + 0.1, sharpness), **close
        )
        expected = wave(5 * TURNS - 2 * RADIUS + 0.2, sharpness)
        np.testing.assert_allclose(made(value.spokes, X, Y, F(5), F(-2), s, F(0.2)), expected, atol=2e-4 * sharpness)


@pytest.mark.parametrize("petals", [0, 5])
@pytest.mark.parametrize("outline", [0, 1, 2])
def test_shapes_are_cones_over_their_outline(outline, petals):
    u, v = np.abs(X), np.abs(Y)
    distance = (RADIUS, np.maximum(u, v), 0.75 * (u + v))[outline]
    distance = distance * (1 + 0.35 * np.cos(2 * np.pi * petals * TURNS) * (petals > 0))
    expected = np.clip((1 - distance / 0.8) / 0.4, 0, 1)
    np.testing.assert_allclose(made(value.shape, X, Y, outline, F(0.8), F(0.4), F(petals)), expected, atol=1e-3)
    assert 0.05 < (expected > 0).mean() < 0.6


def test_functions_of_one_value():
    v = V.astype(float)
    np.testing.assert_allclose(changed(value.wave, F(1.7), F(0.1)), wave(1.7 * v + 0.1, 1.0), atol=1e-5)
    zigzag = 2.6 * v % 2
    np.testing.assert_allclose(changed(value.fold, F(2.6)), np.minimum(zigzag, 2 - zigzag), atol=1e-5)
    np.testing.assert_allclose(changed(value.saw, F(2.5)), 2.5 * v % 1, atol=1e-5)
    t = np.clip((v - 0.3) / 0.4, 0, 1)
    np.testing.assert_allclose(changed(value.step, F(0.5), F(0.4)), 3 * t**2 - 2 * t**3, atol=1e-5)
    np.testing.assert_allclose(changed(value.bias, F(0.2)), v / ((1 / 0.2 - 2) * (1 - v) + 1), atol=1e-5)
    assert changed(value.bias, F(0.2))[2] == pytest.approx(0.2)
    np.testing.assert_allclose(changed(value.terraces, F(4)), np.minimum(np.floor(4 * v), 3) / 3, atol=1e-6)


def test_functions_of_several_values():
    v, w, z = (a.astype(float) for a in (V, W, Z))
    for function, arguments, expected in (
        (value.blend, (W, F(0.3)), 0.7 * v + 0.3 * w),
        (value.multiply, (W,), v * w),
        (value.screen, (W,), v + w - v * w),
        (value.darker, (W,), np.minimum(v, w)),
        (value.lighter, (W,), np.maximum(v, w)),
        (value.difference, (W,), np.abs(v - w)),
        (value.mix, (W, Z), (1 - z) * v + z * w),
    ):
        np.testing.assert_allclose(changed(function, *arguments), expected, atol=1e-6)
    copied = np.empty_like(V)
    value.copy(V, copied)
    np.testing.assert_array_equal(copied, V)
