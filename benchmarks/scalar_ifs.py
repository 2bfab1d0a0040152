"""The published algorithm for a fractal sample, one point after another: the baseline of `benchmarks.generators`.

Written from the formulas of Anderson & Farrell (WACV 2022): jitter, chaos game, histogram, HSV color, diamond-square
background, composite, 3 × 3 blur, in double precision with numba's own random numbers and one call per image. All of it is
compiled, which the published program is not; at small sizes it is therefore the faster of the two.
"""
# ruff: noqa: NPY002 (numba compiles only the global generator's functions cheaply, and a baseline needs no seed)

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit
def _jittered(system):
    """A rotation of the left singular vectors of one map by U(-.5, .5), or a shift of its offset."""
    changed = system.copy()
    i = np.random.randint(len(system))
    if np.random.random() < 0.67:
        u, s, v = np.linalg.svd(np.ascontiguousarray(system[i, :, :2]))
        angle = np.random.uniform(-0.5, 0.5)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        changed[i, :, :2] = u @ turn @ np.diag(s) @ v
    else:
        changed[i, 0, 2] += np.random.uniform(-0.5, 0.5)
        changed[i, 1, 2] += np.random.uniform(-0.5, 0.5)
    return changed


@njit
def _iterate(system, points):
    weights = np.empty(len(system))
    for i in range(len(system)):
        weights[i] = abs(system[i, 0, 0] * system[i, 1, 1] - system[i, 0, 1] * system[i, 1, 0])
    cumulative = np.cumsum(weights / weights.sum())
    coordinates = np.empty((points, 2))
    x, y = np.linalg.solve(np.eye(2) - system[0, :, :2], np.ascontiguousarray(system[0, :, 2]))
    for t in range(points):
        r = np.random.random()
        k = 0
        while k < len(system) - 1 and r > cumulative[k]:
            k += 1
        m = system[k]
        x, y = m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2]
        coordinates[t, 0], coordinates[t, 1] = x, y
    return coordinates


@njit
def _histogram(coordinates, size):
    xs, ys = coordinates[:, 0], coordinates[:, 1]
    xmin, xmax, ymin, ymax = xs.min(), xs.max(), ys.min(), ys.max()
    scale_x, scale_y = np.random.uniform(0.5, 2.0), np.random.uniform(0.5, 2.0)
    shift_x, shift_y = np.random.uniform(-0.2, 0.2), np.random.uniform(-0.2, 0.2)
    flip_x, flip_y, swap = np.random.random() < 0.5, np.random.random() < 0.5, np.random.random() < 0.5
    counts = np.zeros((size, size))
    for t in range(len(coordinates)):
        u = ((xs[t] - xmin) / (xmax - xmin) - 0.5) * scale_x + 0.5 + shift_x
        v = ((ys[t] - ymin) / (ymax - ymin) - 0.5) * scale_y + 0.5 + shift_y
        i, j = math.floor(u * (size - 1)), math.floor(v * (size - 1))
        if 0 <= i < size and 0 <= j < size:
            i = size - 1 - i if flip_x else i
            j = size - 1 - j if flip_y else j
            if swap:
                counts[i, j] += 1.0
            else:
                counts[j, i] += 1.0
    return counts / max(counts.max(), 1.0)


@njit
def _rgb(hue, saturation, value, pixel):
    for c in range(3):
        k = (5 - 2 * c + 6.0 * hue) % 6.0
        pixel[c] = 255.0 * value * (1.0 - saturation * max(0.0, min(k, 4.0 - k, 1.0)))


@njit
def _diamond_square(size):
    side = 1
    while side < size:
        side *= 2
    grid = np.zeros((side, side))
    decay = np.random.uniform(0.4, 0.8)
    step, k = side, 1
    while step > 1:
        half, amplitude = step // 2, 0.5 * math.exp(decay * (1 - k))
        for i in range(half, side, step):
            for j in range(half, side, step):
                corners = grid[i - half, j - half] + grid[i - half, (j + half) % side]
                corners += grid[(i + half) % side, j - half] + grid[(i + half) % side, (j + half) % side]
                grid[i, j] = corners / 4 + np.random.uniform(-amplitude, amplitude)
        for i in range(0, side, half):
            for j in range((i + half) % step, side, step):
                edges = grid[(i - half) % side, j] + grid[(i + half) % side, j]
                edges += grid[i, (j - half) % side] + grid[i, (j + half) % side]
                grid[i, j] = edges / 4 + np.random.uniform(-amplitude, amplitude)
        step, k = half, k + 1
    grid -= grid.min()
    return (grid / grid.max())[:size, :size]


@njit
def _blurred(image):
    sigma = np.random.uniform(0.5, 1.0)
    outer = math.exp(-0.5 / sigma**2)
    taps = np.array([outer, 1.0, outer]) / (1.0 + 2.0 * outer)
    size = image.shape[0]
    across, out = np.empty_like(image), np.empty(image.shape, np.uint8)
    for i in range(size):
        for j in range(size):
            left, right = max(j - 1, 0), min(j + 1, size - 1)
            for c in range(3):
                across[i, j, c] = taps[0] * image[i, left, c] + taps[1] * image[i, j, c] + taps[2] * image[i, right, c]
    for i in range(size):
        above, below = max(i - 1, 0), min(i + 1, size - 1)
        for j in range(size):
            for c in range(3):
                value = taps[0] * across[above, j, c] + taps[1] * across[i, j, c] + taps[2] * across[below, j, c]
                out[i, j, c] = np.uint8(value + 0.5)
    return out


@njit
def _paint_background(rendered, image):
    """Fill dark pixels of `rendered` with a cloud."""
    size = len(image)
    cloud = _diamond_square(size)
    cloud_shift, cloud_scale = np.random.random(), np.random.uniform(0.25, 1.0)
    s0, s1 = np.random.uniform(0.4, 0.6), np.random.uniform(0.1, 0.3)
    v0, v1 = np.random.uniform(0.4, 0.6), np.random.uniform(0.3, 0.6)
    for i in range(size):
        for j in range(size):
            if rendered[i, j] == 0.0:
                z = cloud[i, j]
                _rgb(cloud_scale * z + cloud_shift, s0 + s1 * z, min(v0 + v1 * z, 1.0), image[i, j])


@njit
def _paste(rendered, top, left, image):
    shift, saturation, value = np.random.random(), np.random.uniform(0.3, 1.0), np.random.uniform(0.5, 1.0)
    for i in range(len(rendered)):
        for j in range(len(rendered)):
            if rendered[i, j] > 0.0:
                _rgb(rendered[i, j] + shift, saturation, value, image[top + i, left + j])


@njit
def _sample(system, size, points):
    rendered = _histogram(_iterate(_jittered(system), points), size)
    image = np.empty((size, size, 3))
    _paint_background(rendered, image)
    _paste(rendered, 0, 0, image)
    return _blurred(image)


@njit
def _scene(systems, counts, size, points):
    image = np.empty((size, size, 3))
    _paint_background(np.zeros((size, size)), image)
    for _ in range(1 + np.random.randint(5)):
        k = np.random.randint(len(systems))
        side = int(np.random.uniform(0.15, 0.6) * size)
        top, left = np.random.randint(size - side + 1), np.random.randint(size - side + 1)
        rendered = _histogram(_iterate(_jittered(systems[k, : counts[k]]), points), side)
        _paste(rendered, top, left, image)
    return _blurred(image)


def scalar_sample(system: NDArray[np.float64], size: int, points: int) -> NDArray[np.uint8]:
    """An image uint8[size, size, 3] of a jitter of the system float64[n, 2, 3]; random, from numba's global state."""
    return _sample(np.ascontiguousarray(system), size, points)


def scalar_scene(systems: NDArray[np.float64], counts: NDArray[np.int64], size: int, points: int) -> NDArray[np.uint8]:
    """An image uint8[size, size, 3] of 1 to 5 jittered systems of float64[N, n, 2, 3], each of `points` points; random too."""
    return _scene(systems, counts, size, points)
