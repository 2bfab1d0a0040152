"""From points of a flame to pixels: a view of where they are dense, a histogram with colors, logarithm and gamma."""

import math

import numpy as np
from numba import njit

from ..elementary import exp, log
from .variations import POOL

#: Entries of the table of brightness, and the density at which it ends, in units of the mean.
TONES = 1024
_0, _1, _HALF, _FULL = (np.float32(v) for v in (0.0, 1.0, 0.5, 255.0))
_ONE_POINT, _LOW = np.uint64(1 << 32), np.uint64(0xFFFFFFFF)
#: A pixel with this many points shows its own density by half, the mean of its neighborhood for the rest.
_SURE = np.float32(3.0)
_16TH = np.float32(1.0 / 16.0)
_LAST = np.float32(TONES - 1)


@njit
def middle_and_spread(points, n):
    """(x, y, deviation) of the bulk of n points (float32[2, n]), in float64.

    Moments are taken five times, of what lies within three deviations by the moments before: far points do not count.
    """
    x, y, spread = 0.0, 0.0, 1e5
    for _ in range(6):
        count, sum_x, sum_y, squares = 0, 0.0, 0.0, 0.0
        for k in range(n):
            a, b = points[0, k] - x, points[1, k] - y
            square = a * a + b * b
            if square < 9.0 * spread * spread:
                count += 1
                sum_x += a
                sum_y += b
                squares += square
        if count == 0:
            break
        sum_x /= count
        sum_y /= count
        x, y = x + sum_x, y + sum_y
        spread = math.sqrt(max(squares / count - sum_x * sum_x - sum_y * sum_y, 1e-12))
    return x, y, spread


@njit
def set_view(x, y, scale, c, s, mirror, size, view):
    """view (float32[6]): pixels are scale times the distance from (x, y), turned by the angle of (c, s), about the center."""
    a, b = scale * c, scale * s
    view[0], view[1] = np.float32(a), np.float32(-b)
    view[3], view[4] = np.float32(mirror * b), np.float32(mirror * a)
    view[2] = np.float32(0.5 * size - (a * x - b * y))
    view[5] = np.float32(0.5 * size - mirror * (b * x + a * y))


@njit
def count_points(u, v, tint, view, size, cells, counts):
    """Add POOL points to counts (uint64[S² + 1]), the last entry for those beyond the canvas.

    The upper 32 bits count points, the lower ones add up colors in 0 … 255; cells: int64[POOL] workspace.
    """
    a, b, e, c, d, f = view[0], view[1], view[2], view[3], view[4], view[5]
    end, outside = np.float32(size), np.int32(size * size)
    for k in range(np.uint64(POOL)):
        x, y = a * u[k] + b * v[k] + e, c * u[k] + d * v[k] + f
        inside = (x >= _0) & (x < end) & (y >= _0) & (y < end)
        x, y = x if inside else _0, y if inside else _0
        cell = np.int32(np.int32(y) * np.int32(size) + np.int32(x))
        cells[k] = cell if inside else outside
    for k in range(np.uint64(POOL)):
        counts[np.uint64(cells[k])] += _ONE_POINT | np.uint64(np.int32(tint[k] * _FULL))


@njit
def smooth(counts, size, density, tint):
    """Density estimation: density (float32[S, S]) in points a pixel, tint (the mean color there, 0 … 255).

    The fewer points a pixel has, the more it takes the mean of its 3 × 3 neighborhood, weighted 1, 2, 1 each way: a short form
    of the adaptive kernels of Suykens & Willems, 2000.
    """
    for row in range(size):
        for column in range(size):
            here = counts[row * size + column]
            points, colors = 0, 0
            for down in range(-1, 2):
                y = min(max(row + down, 0), size - 1)
                for right in range(-1, 2):
                    there = counts[y * size + min(max(column + right, 0), size - 1)]
                    weight = (2 - abs(down)) * (2 - abs(right))
                    points += weight * np.int64(there >> np.uint64(32))
                    colors += weight * np.int64(there & _LOW)
            own = np.float32(np.int64(here >> np.uint64(32)))
            sure = own / (own + _SURE)
            value = sure * own + (_1 - sure) * np.float32(points) * _16TH
            color = sure * np.float32(np.int64(here & _LOW)) + (_1 - sure) * np.float32(colors) * _16TH
            density[row, column] = value
            tint[row, column] = color / value if value > _0 else _0


@njit
def usual_density(density):
    """The density that most points have around them, (Σ d^(3/2) / Σ d)², in float64: a few very dense pixels count little."""
    total, roots = 0.0, 0.0
    for row in range(density.shape[0]):
        for column in range(density.shape[1]):
            value = np.float64(density[row, column])
            total += value
            roots += value * math.sqrt(value)
    root = roots / max(total, 1e-9)
    return max(root * root, 1e-9)


@njit
def tone_table(contrast, gamma, tones):
    """tones[k] (float32[TONES]): opacity at the density d with d / (d + 1) = k / (TONES - 1), in units of the usual density.

    (log(1 + contrast d) / log(1 + 3 contrast))^(1 / gamma), at most 1: the logarithm and gamma of Draves & Reckase, section 4.
    """
    white = log(1.0 + 3.0 * contrast)
    for k in range(TONES):
        part = min(k / (TONES - 1), 0.999)
        bright = min(log(1.0 + contrast * part / (1.0 - part)) / white, 1.0)
        tones[k] = np.float32(exp(log(bright) / gamma)) if bright > 0.0 else _0


@njit
def vivid(table, vibrancy, gamma):
    """Make a palette (float32[3, K] in 0 … 255) one of light: its brightest channel in [.55, 1], and mixed with its gamma.

    Vibrancy 1 keeps colors; 0 gives each channel its own gamma, which makes them pale (Draves & Reckase, section 6).
    """
    for k in range(table.shape[1]):
        top = max(table[0, k], table[1, k], table[2, k])
        light = 0.55 + 0.45 * min(top / 255.0, 1.0)
        for channel in range(3):
            level = light * table[channel, k] / top if top > 0.0 else light
            pale = exp(log(level) / gamma) if level > 0.0 else 0.0
            table[channel, k] = np.float32(255.0 * (vibrancy * level + (1.0 - vibrancy) * pale))


@njit(error_model="numpy")
def composite(density, tint, usual, tones, table, backdrop, field, image):
    """image (uint8[S, S, 3]): palette colors (float32[3, 256]) over the backdrop (uint8[3, 256]) of a field (uint8[≥ S, ≥ S])."""
    size = density.shape[0]
    scale = np.float32(1.0 / usual)
    for row in range(size):
        for column in range(size):
            value = density[row, column] * scale
            opacity = tones[np.uint64(np.int32(value / (value + _1) * _LAST))]
            color, below = np.uint64(np.int32(tint[row, column])), np.uint64(field[row, column])
            for channel in range(3):
                behind = np.float32(np.int32(backdrop[channel, below]))
                level = behind + opacity * (table[channel, color] - behind)
                level = _0 if level < _0 else level
                image[row, column, channel] = np.uint8(np.int32((_FULL if level > _FULL else level) + _HALF))
