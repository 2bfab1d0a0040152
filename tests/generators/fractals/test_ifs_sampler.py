"""Systems by singular values: the paper's constraints over many systems, and a plain loop from its formulas."""

import math

import numpy as np
import pytest

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.generators.elementary import cos_sin, exp_negative
from wildfern.generators.fractals.ifs_sampler import FACTORS, MAX_SINGULAR, S1, S2, SAMPLINGS, sample_systems
from wildfern.generators.fractals.jitter import JITTERS, jitter_factors


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("maps", [(2, 4), (2, 8), (7, 7)])
def test_constraints_hold_over_many_systems(maps, sampling):
    systems, counts = sample_systems(3, np.arange(100_000), maps, sampling)
    assert np.isfinite(systems).all()
    assert set(counts.tolist()) == set(range(maps[0], maps[1] + 1))
    s1, s2 = np.moveaxis(np.linalg.svd(systems[..., :2], compute_uv=False), -1, 0)
    used = np.arange(maps[1]) < counts[:, None]
    assert (s1[used] <= MAX_SINGULAR + 1e-12).all()
    assert (s2[used] >= 0).all()
    alpha = (s1 + 2 * s2).sum(1)
    assert (alpha >= (5 + counts) / 2 - 1e-9).all()
    assert (alpha <= (6 + counts) / 2 + 1e-9).all()
    # α's position in its interval is uniform: mean 1/2, standard error 1/sqrt(12 · 10⁵).
    assert abs((2 * alpha - 5 - counts).mean() - 0.5) < 5 / math.sqrt(12e5)
    assert np.abs(systems[..., 2]).max() <= 1
    assert not systems[~used].any()
    determinants = np.linalg.det(systems[..., :2])[used]
    assert 0.45 < (determinants > 0).mean() < 0.55


def turned(turns):
    angle = 2 * math.pi * turns
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def plain_system(class_key, fewest, most):
    """One system by the formulas of Anderson & Farrell with 1 replaced by MAX_SINGULAR, from the same uniforms."""
    u = uniform(class_key, 2 + 8 * most)
    n = fewest + int(u[0] * (most - fewest + 1))
    c = MAX_SINGULAR
    p = (5 + n) / 2 + u[1] / 2
    q = p - 3 * c * (n - 1)
    maps = []
    for i in range(n):
        u1, u2, theta, phi, d1, d2, b1, b2 = u[2 + 8 * i : 10 + 8 * i]
        if i < n - 1:
            s1 = max(0, q / 3) + u1 * (min(c, p) - max(0, q / 3))
            q, p = q - s1, p - s1
            s2 = max(0, q / 2) + u2 * (min(s1, p / 2) - max(0, q / 2))
            q, p = q - 2 * s2 + 3 * c, p - 2 * s2
        else:
            s2 = max(0, (p - c) / 2) + u2 * (p / 3 - max(0, (p - c) / 2))
            s1 = p - 2 * s2
        left, right = turned(theta), turned(phi)
        signs = np.diag([1 if d < 0.5 else -1 for d in (d1, d2)])
        maps.append(np.column_stack([left @ np.diag([s1, s2]) @ right @ signs, [2 * b1 - 1, 2 * b2 - 1]]))
    return np.array(maps)


def test_systems_match_the_plain_loop():
    systems, counts = sample_systems(-5, np.array([0, 1, 17, 10**15]), (2, 8))
    stream_key = np.array([key("ifs", -5)], np.uint64)
    for system, n, label in zip(systems, counts, (0, 1, 17, 10**15), strict=True):
        expected = plain_system(fold(fold(stream_key, 1), label)[0], 2, 8)
        assert n == len(expected)
        np.testing.assert_allclose(system[:n], expected, atol=1e-13)


@pytest.mark.parametrize("n", [2, 4])
def test_uniform_sampling_is_uniform_on_the_surface(n):
    """Against points of the polytope made by another rejection: all pairs uniform, kept where the sum is near α."""
    generator = np.random.default_rng(0)
    pairs = MAX_SINGULAR * np.sort(generator.random((2_000_000, n, 2)), axis=2)[..., ::-1]
    alpha = (pairs * [1, 2]).sum((1, 2))
    # Dense in α by the surface's own measure; α itself is uniform, so weigh its narrow slices alike.
    inside = (alpha >= (5 + n) / 2) & (alpha < (6 + n) / 2)
    pairs, slices = pairs[inside], (40 * (alpha[inside] - (5 + n) / 2)).astype(int)
    kept = np.concatenate([np.flatnonzero(slices == k)[: np.bincount(slices).min()] for k in range(20)])
    expected = np.sort(pairs[kept], axis=None)
    systems, _ = sample_systems(1, np.arange(20_000), (n, n), "uniform")
    drawn = np.sort(np.linalg.svd(systems[..., :2], compute_uv=False), axis=None)
    at = np.linspace(0.01, 0.99, 99)
    distance = np.searchsorted(drawn, at) / drawn.size - np.searchsorted(expected, at) / expected.size
    # Kolmogorov-Smirnov at one in 10⁴, for the number of systems: the values of one system are not independent.
    assert np.abs(distance).max() < 2.23 * math.sqrt(1 / 20_000 + 1 / len(kept))
    sequential = np.sort(
        np.linalg.svd(sample_systems(1, np.arange(20_000), (n, n))[0][..., :2], compute_uv=False), None
    )
    difference = np.searchsorted(drawn, at) / drawn.size - np.searchsorted(sequential, at) / sequential.size
    assert np.abs(difference).max() > 0.02


def test_jitter_changes_one_map_and_keeps_contraction():
    generator = np.random.default_rng(0)
    for kind, name in enumerate(JITTERS):
        for trial in range(500):
            factors = generator.uniform(-1, 1, (4, FACTORS))
            factors[:, S2] = generator.uniform(0, MAX_SINGULAR, 4)
            factors[:, S1] = generator.uniform(factors[:, S2], MAX_SINGULAR)
            changed = factors.copy()
            jitter_factors(kind, np.uint64(1000 * kind + trial), 3, changed)
            rows = np.flatnonzero((changed != factors).any(1))
            assert len(rows) <= (
                0 if name in ("none", "fractaldb") else 1
            )  # FractalDB's works on parameters, not on factors
            assert 3 not in rows
            assert changed[:, [S1, S2]].max() <= MAX_SINGULAR
            if name == "svd":
                np.testing.assert_array_equal(changed[:, [S1, S2]], factors[:, [S1, S2]])


def test_elementary_functions_match_the_library():
    for turns in np.random.default_rng(1).uniform(-3, 3, 2000):
        c, s = cos_sin(turns)
        assert abs(c - math.cos(2 * math.pi * turns)) < 5e-15
        assert abs(s - math.sin(2 * math.pi * turns)) < 5e-15
    for x in np.linspace(0, 8, 500):
        assert math.isclose(exp_negative(x), math.exp(-x), rel_tol=1e-13)
