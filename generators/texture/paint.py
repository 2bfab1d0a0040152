"""From the values of a program to an image: equalized levels, palettes, relief, and the mean over the samples of a pixel."""

import numpy as np
from numba import njit

from ..palette import ENTRIES

#: Levels that values are sorted into.
LEVELS = 1024
_LAST, _INVERSE_LAST = np.float32(LEVELS - 1), np.float32(1.0 / (LEVELS - 1))
_0, _1, _HALF, _FULL = (np.float32(v) for v in (0.0, 1.0, 0.5, 255.0))
_DARKEST, _LIGHTEST = np.float32(0.35), np.float32(1.5)


@njit
def extremes(plane, low, high):
    """Least and greatest of a plane float32[G, G]; low, high: float32[G] workspace."""
    columns = np.uint64(plane.shape[1])
    for j in range(columns):
        low[j] = high[j] = plane[0, j]
    for i in range(1, plane.shape[0]):
        row = plane[i]
        for j in range(columns):
            low[j] = row[j] if row[j] < low[j] else low[j]
            high[j] = row[j] if row[j] > high[j] else high[j]
    least, most = low[0], high[0]
    for j in range(columns):
        least, most = min(least, low[j]), max(most, high[j])
    return least, most


@njit(error_model="numpy")
def to_levels(plane, low, high):
    """Replace values by levels 0 … LEVELS - 1 (as float32, not rounded) between the extremes; all 0 if these are one."""
    scale = _LAST / (high - low) if high - low > np.float32(1e-4) else _0
    for i in range(plane.shape[0]):
        row = plane[i]
        for k in range(np.uint64(row.size)):
            row[k] = (row[k] - low) * scale


@njit
def places(plane, evenness, place):
    """For each level, where in [0, 1] the palette is read: a mean of the level and of its rank among all values."""
    for level in range(LEVELS):
        place[level] = _0
    for i in range(plane.shape[0]):
        row = plane[i]
        for k in range(np.uint64(row.size)):
            place[np.uint64(np.int32(row[k]))] += _1
    below, share = _0, _1 / np.float32(plane.size)
    rank, straight = np.float32(evenness), np.float32(1.0 - evenness)
    for level in range(LEVELS):
        here = place[level]
        place[level] = rank * (below + _HALF * here) * share + straight * np.float32(level) / _LAST
        below += here


@njit
def level_colors(place, palette, colors):
    """colors[c, level] (float32[3, LEVELS]) of a palette (float32[3, ENTRIES])."""
    for level in range(LEVELS):
        entry = min(int(place[level] * np.float32(ENTRIES)), ENTRIES - 1)
        for c in range(3):
            colors[c, level] = palette[c, entry]


@njit
def paint(plane, second, place, palettes, layered, relief, light, samples, colors, sums, shade, image):
    """Fill image (uint8[S, S, 3]) from planes of levels (float32[G, G], G = samples * S).

    palettes: float32[2, 3, ENTRIES], the second one used where `second` says if `layered`. relief: brightness per slope of
    the plane, seen from -1 to 1, toward `light` (x, y), 0 for none. colors: float32[2, 3, LEVELS], sums:
    float32[3, S] and shade: float32[G] are workspace.
    """
    size, grid = image.shape[0], plane.shape[0]
    level_colors(place, palettes[0], colors[0])
    level_colors(place, palettes[1], colors[1])
    slope = np.float32(relief * grid / (2.0 * LEVELS))
    along, down = slope * np.float32(light[0]), slope * np.float32(light[1])
    share = _1 / np.float32(samples * samples)
    for y in range(size):
        for c in range(3):
            for x in range(size):
                sums[c, x] = _0
        for sub in range(samples):
            r = y * samples + sub
            values, above, by = plane[r], plane[max(r - 1, 0)], second[r]
            if relief > 0.0:
                for k in range(np.uint64(1), np.uint64(grid)):
                    s = _1 + along * (values[k] - values[k - np.uint64(1)]) + down * (values[k] - above[k])
                    s = _DARKEST if s < _DARKEST else s
                    shade[k] = _LIGHTEST if s > _LIGHTEST else s
                shade[0] = shade[1]
            for c in range(3):
                first, other, total = colors[0, c], colors[1, c], sums[c]
                k = np.uint64(0)
                for x in range(size):
                    for _ in range(samples):
                        level = np.uint64(np.int32(values[k]))
                        value = first[level]
                        if layered:
                            value += (other[level] - value) * by[k] * _INVERSE_LAST
                        if relief > 0.0:
                            value *= shade[k]
                        total[x] += value
                        k += np.uint64(1)
        for c in range(3):
            for x in range(size):
                value = sums[c, x] * share + _HALF
                value = _0 if value < _0 else value
                image[y, x, c] = np.uint8(np.int32(_FULL if value > _FULL else value))
