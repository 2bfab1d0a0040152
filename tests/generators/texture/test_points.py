"""Bends of the plane against their formulas in double precision."""

import numpy as np
import pytest

from wildfern.generators.texture import points as bend
from wildfern.generators.texture.lattice_noise import nearest_points

F = np.float32
SALT = np.uint32(5)


@pytest.fixture(scope="module")
def plane() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return tuple(rng.uniform(-3, 3, 500).astype(F) for _ in range(2))


def rotated(x, y, turns):
    c, s = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    return c * x - s * y, s * x + c * y


def bent(function, x, y, *arguments):
    out = np.full((2, x.size), np.nan, F)
    function(x, y, *arguments, *out)
    return out


def test_turn_moves_turns_zooms_and_stretches(plane):
    x, y = plane
    u, v = rotated(x - 0.5, y + 0.25, -0.1)
    expected = 1.3 * np.sqrt(2.0) * u, 1.3 / np.sqrt(2.0) * v
    np.testing.assert_allclose(bent(bend.turn, x, y, *map(F, (0.1, 1.3, 2.0, 0.5, -0.25))), expected, atol=1e-4)
    far = bent(bend.turn, x * F(1e4), y, *map(F, (0.0, 1.0, 1.0, 0.0, 0.0)))
    assert np.abs(far).max() == bend.FARTHEST


@pytest.mark.parametrize("sectors", [1, 2, 5])
def test_kaleidoscopes_fold_into_one_sector_and_keep_distances(plane, sectors):
    x, y = plane
    u, v = bent(bend.kaleidoscope, x, y, F(sectors), F(0.1))
    np.testing.assert_allclose(np.hypot(u, v), np.hypot(x, y), rtol=1e-4)
    angle = np.arctan2(v, u) / (2 * np.pi) - 0.1
    angle -= np.round(angle)
    assert angle.min() >= -1e-4
    assert angle.max() <= 0.5 / sectors + 1e-4
    # Turning the plane by a whole pair of sectors, or mirroring it, changes nothing.
    same = bent(bend.kaleidoscope, *(a.astype(F) for a in rotated(x, y, 1 / sectors)), F(sectors), F(0.1))
    np.testing.assert_allclose(same, (u, v), atol=2e-3)


def test_polar_coordinates_have_no_seam(plane):
    x, y = plane
    u, v = bent(bend.polar, x, y, F(3), F(1.5))
    np.testing.assert_allclose(u, 12 * np.abs(np.arctan2(y, x)) / (2 * np.pi), atol=1e-3)
    np.testing.assert_allclose(v, 1.5 * np.hypot(x, y), rtol=1e-5)


def test_swirls_turn_less_outward(plane):
    x, y = plane
    expected = rotated(x, y, 0.7 / (1 + (x**2 + y**2) / 0.8**2))
    np.testing.assert_allclose(bent(bend.swirl, x, y, F(0.7), F(0.8)), expected, atol=1e-4)


def test_lenses_bring_the_far_plane_near(plane):
    x, y = plane
    scale = 1 / ((x**2 + y**2) / 0.9**2 + 0.5)
    u, v = bent(bend.lens, x, y, F(0.9))
    np.testing.assert_allclose((u, v), (x * scale, y * scale), atol=1e-4)
    assert np.hypot(u, v).max() <= 0.9 / np.sqrt(2) + 1e-4


def test_ripples_and_warps_shift(plane):
    x, y = plane
    a, f, phase = 0.2, 1.5, 0.3
    expected = x + a * np.sin(2 * np.pi * (f * y + phase)), y + a * np.sin(2 * np.pi * (f * x - phase))
    np.testing.assert_allclose(bent(bend.ripple, x, y, F(a), F(f), F(phase)), expected, atol=1e-4)
    across, down = (np.random.default_rng(k).uniform(0, 1, x.size).astype(F) for k in range(2))
    shifted = x + 0.4 * (across - 0.5), y + 0.4 * (down - 0.5)
    np.testing.assert_allclose(bent(bend.warp, x, y, F(0.4), across, down), shifted, atol=1e-5)


def tiled(x, y, layout, count, spin):
    out = np.full((3, x.size), np.nan, F)
    bend.tile(x.astype(F), y.astype(F), layout, F(count), spin, SALT, *out)
    return out


def test_squares_repeat_and_mirrors_meet(plane):
    x, y = plane
    u, v, tone = tiled(x, y, bend.SQUARES, 1.25, 0)
    i, j = np.floor(x * F(1.25)), np.floor(y * F(1.25))
    np.testing.assert_allclose((u, v), (x * 1.25 - i - 0.5, y * 1.25 - j - 0.5), atol=1e-5)
    tiles = {}
    for key, value in zip(zip(i, j, strict=True), tone, strict=True):
        assert tiles.setdefault(key, value) == value  # one number for each tile
    assert len(set(tiles.values())) == len(tiles)
    mirrored = tiled(x, y, bend.MIRRORS, 1.25, 2)[:2]
    np.testing.assert_allclose(mirrored, (np.where(i % 2, -u, u), np.where(j % 2, -v, v)), atol=1e-6)


def test_bricks_are_flat_and_every_other_row_is_shifted(plane):
    x, y = plane
    u, v, _ = tiled(x, y, bend.BRICKS, 1.0, 0)
    row = np.floor(1.5 * y)
    np.testing.assert_allclose(v, 1.5 * y - row - 0.5, atol=1e-5)
    across = 0.75 * x + 0.5 * (row % 2)
    clear = np.abs(across - np.round(across)) > 1e-4
    np.testing.assert_allclose(u[clear], (across - np.floor(across) - 0.5)[clear], atol=1e-5)


def test_hexagons_measure_from_the_nearest_center(plane):
    x, y = plane
    u, v, tone = tiled(x, y, bend.HEXAGONS, 1.0, 0)
    steps = np.arange(-12, 13)
    i, j = (a.ravel() for a in np.meshgrid(steps, steps))
    centers = np.stack([i + 0.5 * (j % 2), j * np.sqrt(3) / 2])
    away = np.stack([x[:, None] - centers[0], y[:, None] - centers[1]])
    distances = (away**2).sum(0)
    np.testing.assert_allclose(u**2 + v**2, distances.min(1), atol=1e-4)
    nearest = distances.argmin(1)
    assert len(set(zip(nearest, tone, strict=True))) == len(set(nearest))


@pytest.mark.parametrize(("spin", "steps"), [(1, 4), (2, None)])
def test_tiles_turn_by_an_angle_of_their_own(plane, spin, steps):
    x, y = plane
    u, v, tone = tiled(x, y, bend.SQUARES, 1.0, 0)
    turns = tone.astype(float) * 61 % 1
    turns = np.floor(turns * steps) / steps if steps else turns
    np.testing.assert_allclose(tiled(x, y, bend.SQUARES, 1.0, spin)[:2], rotated(u, v, turns), atol=1e-3)
    assert len(set(np.round(turns, 6))) == (steps or len(set(tone)))


def test_scattered_tiles_are_those_of_the_nearest_points(plane):
    x, y = plane
    near, out, scratch = np.empty((5, x.size), F), np.empty((3, x.size), F), np.empty((4, x.size), F)
    nearest_points(x, y, F(1.2), F(0.7), SALT, *near)
    bend.scatter(x, y, F(1.2), F(0.7), 0, SALT, scratch, *out)
    np.testing.assert_array_equal(out, near[:3])
    bend.scatter(x, y, F(1.2), F(0.7), 1, SALT, scratch, *out)
    np.testing.assert_allclose(out[:2], rotated(near[0], near[1], near[2].astype(float) * 61), atol=1e-3)
