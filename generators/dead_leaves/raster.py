"""Assigns the points of a row of pixels to leaves: 4 × 4 points per pixel, stored as 16 bits."""

import math

import numpy as np
from numba import njit

_FLAT = 1e-9
_NONE = np.uint16(0)
_BITS_OF_A_ROW, _ONES = 64, np.uint64(0xFFFFFFFFFFFFFFFF)
_0, _1, _2, _4 = (np.uint64(number) for number in (0, 1, 2, 4))


@njit
def leaf_of(x, y, radius, outline, corners, sides):
    """(x, y, radius, top, bottom, corners, left, right) of a leaf, and `sides` (float32[8, 3]) of its convex outline.

    A side is x = sides[e, 0] + sides[e, 1] (y - sides[e, 2]); there are `left` ones from row 0 and `right` ones from row 4.
    With angles that rise, a side along which y grows bounds the leaf to the right.
    """
    if corners == 0:
        return x, y, radius, y - radius, y + radius, 0, 0, 0
    left, right, top, bottom = 0, 0, outline[0, 1], outline[0, 1]
    for k in range(corners):
        following = k + 1 if k + 1 < corners else 0
        top, bottom = min(top, outline[k, 1]), max(bottom, outline[k, 1])
        rise = outline[following, 1] - outline[k, 1]
        if abs(rise) < _FLAT:
            continue
        at = 4 + right if rise > 0.0 else left
        sides[at, 0], sides[at, 2] = outline[k, 0], outline[k, 1]
        sides[at, 1] = (outline[following, 0] - outline[k, 0]) / rise
        right += 1 if rise > 0.0 else 0
        left += 0 if rise > 0.0 else 1
    return x, y, radius, top, bottom, corners, left, right


@njit
def spans(first_row, last_row, antialias, leaf, sides, heights, begins, ends, first, last):
    """The points inside a leaf on the lines n of rows first_row … last_row, four a row: first[n] ≤ number < last[n] (int32[4 S]).

    Point m of line n lies at ((m + 1/2) / (4 S), (n + 1/2) / (4 S)); without antialiasing all points of a pixel count as lying
    in its middle. heights, begins, ends: float32[4 S] workspace.
    """
    corners, left, right = leaf[5:]
    x, y, radius = np.float32(leaf[0]), np.float32(leaf[1]), np.float32(leaf[2])
    top, bottom, zero = np.float32(leaf[3]), np.float32(leaf[4]), np.float32(0.0)
    begin, end = np.uint64(4 * first_row), np.uint64(4 * last_row + 4)
    low, shift = np.int32(0 if antialias else 3), np.float32(0.5 if antialias else -1.0)
    scale = np.float32(1.0 / heights.size)
    for n in range(begin, end):
        heights[n] = (np.float32(np.int32(n) | low) + shift) * scale
    if corners == 0:
        for n in range(begin, end):
            square = radius * radius - (heights[n] - y) * (heights[n] - y)
            reach = math.sqrt(square if square > zero else zero)
            begins[n], ends[n] = x - reach, x + reach
    else:
        for n in range(begin, end):
            begins[n], ends[n] = x - radius, x + radius
        for e in range(left):
            along, slope, across = sides[e, 0], sides[e, 1], sides[e, 2]
            for n in range(begin, end):
                bound = along + slope * (heights[n] - across)
                begins[n] = bound if bound > begins[n] else begins[n]
        for e in range(4, 4 + right):
            along, slope, across = sides[e, 0], sides[e, 1], sides[e, 2]
            for n in range(begin, end):
                bound = along + slope * (heights[n] - across)
                ends[n] = bound if bound < ends[n] else ends[n]
    # The first point at or beyond u (in points) is number floor(u + 1/2).
    step = np.int32(1 if antialias else 4)
    points, half = np.float32(heights.size // step), np.float32(0.5)
    for n in range(begin, end):
        a, b = begins[n] * points, ends[n] * points
        a = zero if a < zero else a
        b = zero if (b < zero) | (heights[n] < top) | (heights[n] > bottom) else b
        first[n] = np.int32((points if a > points else a) + half) * step
        last[n] = np.int32((points if b > points else b) + half) * step


@njit
def points_held(first, last):
    """Number of points within the spans of all lines."""
    held = 0
    for n in range(first.size):
        held += max(last[n] - first[n], 0)
    return held


@njit(inline="always")
def _ones(bits):
    """Number of set bits among 16."""
    bits = bits - ((bits >> 1) & 0x5555)
    bits = (bits & 0x3333) + ((bits >> 2) & 0x3333)
    bits = (bits + (bits >> 4)) & 0x0F0F
    return (bits + (bits >> 8)) & 0x1F


@njit
def _fill_inside(row, begin, end, red, green, blue, open_points, free, sums):
    """Give all open points of pixels begin … end - 1 of a row to a leaf; returns whether there were any."""
    any_free = _NONE
    for p in range(np.uint64(begin), np.uint64(end)):
        n = free[row, p]
        any_free |= n
        sums[row, _0, p] += np.uint16(n * red)
        sums[row, _1, p] += np.uint16(n * green)
        sums[row, _2, p] += np.uint16(n * blue)
        free[row, p] = _NONE
        open_points[row, p] = _NONE
    return any_free > 0


@njit
def _fill_edge(row, begin, end, red, green, blue, first, last, open_points, free, sums):
    """Give those open points of pixels begin … end - 1 to a leaf that lie within its spans; returns whether there were any."""
    hit = False
    for pixel in range(begin, end):
        p = np.uint64(pixel)
        if free[row, p] == 0:
            continue
        inside, corner = 0, 4 * pixel
        for k in range(4):
            n = _4 * row + np.uint64(k)
            a, b = min(max(first[n] - corner, 0), 4), min(max(last[n] - corner, 0), 4)
            inside |= (((1 << b) - 1) & ~((1 << a) - 1)) << (4 * k)
        taken = np.int64(open_points[row, p]) & inside
        if taken:
            n = np.uint16(_ones(taken))
            open_points[row, p] ^= np.uint16(taken)
            free[row, p] -= n
            sums[row, _0, p] += np.uint16(n * red)
            sums[row, _1, p] += np.uint16(n * green)
            sums[row, _2, p] += np.uint16(n * blue)
            hit = True
    return hit


@njit
def fill_row(row, red, green, blue, first, last, open_points, free, sums):
    """Give the open points within the spans first … last of a row (uint64) of pixels to a leaf; returns whether there were any.

    open_points, free (uint16[S, S]): points not yet given away, as bits and as numbers. sums (uint16[S, 3, S]): colors
    (0 … 255) of those given, added up.
    """
    # Pixels begin … end - 1 are touched; of these inner … outer - 1 lie inside with all their points.
    begin, end, inner, outer = np.int64(1) << 40, 0, 0, np.int64(1) << 40
    for k in range(4):
        n = _4 * row + np.uint64(k)
        if last[n] > first[n]:
            begin, end = min(begin, first[n]), max(end, last[n])
            inner, outer = max(inner, first[n]), min(outer, last[n])
        else:
            outer = 0
    begin, end, inner, outer = begin >> 2, (end + 3) >> 2, (inner + 3) >> 2, outer >> 2
    if begin >= end:
        return False
    if inner >= outer:
        return _fill_edge(row, begin, end, red, green, blue, first, last, open_points, free, sums)
    hit = _fill_edge(row, begin, inner, red, green, blue, first, last, open_points, free, sums)
    hit |= _fill_inside(row, inner, outer, red, green, blue, open_points, free, sums)
    return hit | _fill_edge(row, outer, end, red, green, blue, first, last, open_points, free, sums)


@njit
def block_width(size):
    """Pixels of a row that share one of the 64 bits that mark where points are open."""
    return (size + _BITS_OF_A_ROW - 1) // _BITS_OF_A_ROW


@njit
def blocks_between(first_block, last_block):
    """The bits of these blocks and those between (0 … 63)."""
    return (_ONES << np.uint64(first_block)) & (_ONES >> np.uint64(_BITS_OF_A_ROW - 1 - last_block))


@njit
def open_blocks(row, blocks, first_block, last_block, block, free):
    """The bits `blocks` of a row without those of first_block … last_block in which no point is open; free: uint16[S, S]."""
    size = free.shape[1]
    for b in range(first_block, last_block + 1):
        bit = np.uint64(1) << np.uint64(b)
        if blocks & bit:
            any_free = _NONE
            for p in range(np.uint64(b * block), np.uint64(min(b * block + block, size))):
                any_free |= free[row, p]
            if any_free == 0:
                blocks ^= bit
    return blocks
