"""Lattice noise against plain loops over the lattice."""

import numpy as np
import pytest

from wildfern.generators.elementary32 import hash32
from wildfern.generators.texture.lattice_noise import blocks, cells, fractal_sum, nearest_points

SALT = np.uint32(99)
F = np.float32


@pytest.fixture(scope="module")
def points() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.uniform(-5, 5, 300).astype(F) for _ in range(2))


def bits(i: int, j: int, salt: int = SALT) -> int:
    return int(hash32(np.int32(i), np.int32(j), np.uint32(salt)))


def tone(i: int, j: int) -> float:
    return (bits(i, j) >> 8) / 2**24


def perlin(x: float, y: float, salt: int) -> float:
    i, j = int(np.floor(x)), int(np.floor(y))
    dx, dy = x - i, y - j
    sx, sy = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (dx, dy))
    total = 0.0
    for a, wx in ((0, 1 - sx), (1, sx)):
        for b, wy in ((0, 1 - sy), (1, sy)):
            h = bits(i + a, j + b, salt)
            gradient = (h & 0xFFFF) / 2**15 - 1, (h >> 16) / 2**15 - 1
            total += wx * wy * (gradient[0] * (dx - a) + gradient[1] * (dy - b))
    return 1.6 * total


def test_blocks_are_random_numbers_of_squares_and_soft_ones_interpolate_them(points):
    x, y = points
    out = np.empty_like(x)
    blocks(x, y, F(1.5), 0, SALT, out)
    expected = [tone(int(np.floor(F(1.5) * a)), int(np.floor(F(1.5) * b))) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(out, expected, atol=1e-6)
    blocks(x, y, F(1.0), 1, SALT, out)
    for a, b, value in zip(x.astype(float), y.astype(float), out, strict=True):
        i, j = int(np.floor(a)), int(np.floor(b))
        sx, sy = (3 * t**2 - 2 * t**3 for t in (a - i, b - j))
        above = (1 - sx) * tone(i, j) + sx * tone(i + 1, j)
        below = (1 - sx) * tone(i, j + 1) + sx * tone(i + 1, j + 1)
        assert value == pytest.approx((1 - sy) * above + sy * below, abs=1e-4)


@pytest.mark.parametrize("folds", [0, 1, 2])
@pytest.mark.parametrize("octaves", [1, 3])
def test_fractal_sums_add_octaves_of_gradient_noise(points, octaves, folds):
    x, y = points
    out = np.empty_like(x)
    fractal_sum(x, y, F(0.7), octaves, F(0.6), folds, SALT, out)
    for a, b, value in zip(x, y, out, strict=True):
        total, weight = 0.0, 0.0
        for octave in range(octaves):
            frequency = F(0.7) * F(2**octave)
            noise = perlin(float(a * frequency), float(b * frequency), (int(SALT) + octave * 0x9E3779B9) % 2**32)
            total += 0.6**octave * (noise, abs(noise), 1 - abs(noise))[folds]
            weight += 0.6**octave
        expected = total / weight if folds else 0.5 + 0.5 * total / weight
        assert value == pytest.approx(np.clip(expected, 0, 1), abs=1e-4)


def strewn(disorder: float) -> np.ndarray:
    """(x, y, tone) of all points of the squares from -8 to 8."""
    rows = []
    for i in range(-8, 8):
        for j in range(-8, 8):
            h = bits(i, j)
            px, py = (h & 0xFFF) / 4096 - 0.5, (h >> 12 & 0xFFF) / 4096 - 0.5
            rows.append((i + 0.5 + disorder * px, j + 0.5 + disorder * py, (h >> 24) / 256))
    return np.array(rows)


@pytest.mark.parametrize("disorder", [0.0, 0.5, 1.0, 1.5])
def test_the_nearest_point_is_the_nearest_of_all(points, disorder):
    x, y = points
    out = np.empty((5, x.size), F)
    nearest_points(x, y, F(1.0), F(disorder), SALT, *out)
    everything = strewn(min(disorder, 1.0))
    away = np.stack([x[:, None] - everything[:, 0], y[:, None] - everything[:, 1]])
    distances = (away**2).sum(0)
    order = np.argsort(distances, axis=1)
    pixel, nearest = np.arange(x.size), order[:, 0]
    np.testing.assert_allclose(out[3], distances[pixel, nearest], atol=1e-4)
    clear = distances[pixel, order[:, 1]] - distances[pixel, nearest] > 1e-3
    np.testing.assert_allclose(out[:2, clear], away[:, pixel, nearest][:, clear], atol=1e-4)
    np.testing.assert_array_equal(out[2, clear], everything[nearest, 2][clear])
    # The second nearest may lie outside of the nine squares, but seldom.
    assert (np.abs(out[4] - distances[pixel, order[:, 1]]) < 1e-4).mean() > 0.95


def test_cells_measure_distances_walls_and_tones(points):
    x, y = points
    scratch, out = np.empty((4, x.size), F), np.empty((3, x.size), F)
    for measure in range(3):
        cells(x, y, F(1.0), F(0.8), measure, SALT, scratch, out[measure])
    near = np.empty((5, x.size), F)
    nearest_points(x, y, F(1.0), F(0.8), SALT, *near)
    np.testing.assert_allclose(out[0], np.clip(np.sqrt(near[3]), 0, 1), atol=1e-6)
    np.testing.assert_allclose(out[1], np.clip(2 * (np.sqrt(near[4]) - np.sqrt(near[3])), 0, 1), atol=1e-5)
    np.testing.assert_array_equal(out[2], near[2])


def test_another_salt_is_another_noise(points):
    x, y = points
    out = np.empty((2, x.size), F)
    for k, salt in enumerate((1, 2)):
        fractal_sum(x, y, F(1.0), 1, F(1.0), 0, np.uint32(salt), out[k])
    assert abs(np.corrcoef(out)[0, 1]) < 0.2
