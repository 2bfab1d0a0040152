"""Closed polylines on a canvas: antialiased strokes, blended into gray or color planes, and filled polygons.

Coordinates are in pixels; the center of pixel i is at i. Planes have a margin of MARGIN pixels on all sides, which strokes may
touch and which is cropped from the image.
"""

import math
from typing import Literal, get_args

import numpy as np
from numba import njit

MARGIN = 8
Mask = Literal["lines", "ring", "filled"]
MASKS: tuple[str, ...] = get_args(Mask)
_NEXT = np.uint64(1)
_USUAL_TAPS = 3  # pixels that a stroke of one pixel may reach across; wider ones reach more
_B, _S, _R = (np.uint64(row) for row in range(3))
_0, _1, _HALF, _FULL = np.float32(0.0), np.float32(1.0), np.float32(0.5), np.float32(256.0)


@njit
def half_width(size):
    """Half the width of a stroke: one pixel at size 512 as published, and not thinner at smaller sizes."""
    return np.float32(max(0.5, size / 1024.0))


@njit
def _columns(x, y, count, half, size, steep, first, columns, line):
    """How segments (x[i], y[i]) – (x[i + 1], y[i + 1]), i < count, cross the pixels of the axis that they follow more.

    Sets steep[i], whether that is y; the first pixel and the number of pixels within `half` of the segment (none where it
    cannot touch the canvas); and in line (float32[3, ≥ count]) the other coordinate there, the slope, and the reach across.
    """
    outermost = half * np.float32(1.4142135) + _HALF
    low, high = np.float32(MARGIN) - outermost, np.float32(MARGIN + size - 1) + outermost
    least, most = np.float32(MARGIN), np.float32(MARGIN + size - 1)
    starts, slopes, reaches = line[0], line[1], line[2]
    for i in range(np.uint64(count)):
        x0, y0, x1, y1 = x[i], y[i], x[i + _NEXT], y[i + _NEXT]
        upright = abs(y1 - y0) > abs(x1 - x0)
        a0, a1, b0, b1 = y0 if upright else x0, y1 if upright else x1, x0 if upright else y0, x1 if upright else y1
        length = a1 - a0
        slope = (b1 - b0) / (length if length != _0 else _1)
        begin, end = min(a0, a1) - half, max(a0, a1) + half
        begin, end = begin if begin > least else least, end if end < most else most
        end = end if end > _0 else _0
        whole = np.int32(begin)
        whole += np.int32(1 if np.float32(whole) < begin else 0)
        seen = (max(b0, b1) >= low) & (min(b0, b1) <= high)
        steep[i], first[i] = upright, whole
        columns[i] = np.int32(end) - whole + np.int32(1) if seen else np.int32(0)
        starts[i], slopes[i] = b0 + slope * (np.float32(whole) - a0), slope
        reaches[i] = half * np.float32(math.sqrt(_1 + slope * slope)) + _HALF


@njit(inline="always")
def _cover(depth, reach, p, coverage, touched, number):
    """Cover pixel p by the part of it within a stroke that reaches so far to both sides, `depth` from its one edge."""
    depth = min(depth, reach + reach - depth)
    value = np.int32(min(depth, _1) * _FULL + _HALF)
    held = np.int32(coverage[p])
    touched[number] = np.int32(p)
    coverage[p] = np.uint16(max(value, held))
    return number + np.int64((held == 0) & (value > 0))


@njit
def stroke(x, y, count, half, size, segments, line, coverage, touched):
    """Draw segments (x[i], y[i]) – (x[i + 1], y[i + 1]), i < count, into coverage (uint16[(S + 2 MARGIN)²], in 256ths).

    Along the axis that a segment follows more, pixels within `half` (float32) of its ends are covered; across it, the stroke
    extends half √(1 + slope²) to both sides. Coverage of overlapping segments is the maximum, not the sum.
    Returns the number of pixels covered and lists them in touched (int32[(S + 2 MARGIN)² + 1]); they must have been 0.
    segments: int32[3, ≥ count], line: float32[3, ≥ count] workspace.
    """
    steep, first, columns = segments[0], segments[1], segments[2]
    _columns(x, y, count, half, size, steep, first, columns, line)
    outermost = half * np.float32(1.4142135) + _HALF
    low, high = np.float32(MARGIN) - outermost, np.float32(MARGIN + size - 1) + outermost
    width, number = size + 2 * MARGIN, 0
    for i in range(np.uint64(count)):
        along, across = (width, 1) if steep[i] else (1, width)
        reach, slope, start = line[_R, i], line[_S, i], line[_B, i]
        taps = int(reach + reach) + 1
        for column in range(columns[i]):
            b = start + slope * np.float32(column)
            if b < low or b > high:
                continue
            j = int(b - reach) + 1
            inside = reach + np.float32(j) - b
            p = np.uint64((first[i] + column) * along + j * across)
            for tap in range(_USUAL_TAPS):
                number = _cover(inside + np.float32(tap), reach, p, coverage, touched, number)
                p += np.uint64(across)
            for tap in range(_USUAL_TAPS, taps):
                number = _cover(inside + np.float32(tap), reach, p, coverage, touched, number)
                p += np.uint64(across)
    return number


@njit
def blend(number, touched, levels, coverage, planes, seen):
    """Blend a stroke over planes (uint8[channels, (S + 2 MARGIN)²]) in these levels, and set its coverage to 0 again.

    seen (uint8[(S + 2 MARGIN)²]) becomes 1 where at least half of a pixel is covered.
    """
    for k in range(number):
        p = np.uint64(touched[k])
        part = np.int32(coverage[p])
        for channel in range(planes.shape[0]):
            below = np.int32(planes[channel, p])
            planes[channel, p] = np.uint8(below + (((levels[channel] - below) * part + 128) >> 8))
        seen[p] |= np.uint8(part >= 128)
        coverage[p] = 0


@njit
def beyond_the_canvas(x, y, count, center_x, center_y, size):
    """Whether all vertices are farther from the center than any pixel of the canvas."""
    across = np.float32(max(center_x - MARGIN, MARGIN + size - center_x))
    down = np.float32(max(center_y - MARGIN, MARGIN + size - center_y))
    farthest = across * across + down * down
    for i in range(count):
        dx, dy = x[i] - center_x, y[i] - center_y
        if dx * dx + dy * dy < farthest:
            return False
    return True


@njit
def enclose(x, y, count, size, turns, value, mask):
    """Set mask (uint8[S, S]) to `value` where the closed polyline winds around a pixel's middle; turns: int16[S, S + 1]."""
    turns[:] = 0
    low, high = np.float32(MARGIN), np.float32(MARGIN + size)
    for i in range(count):
        x0, y0, x1, y1 = x[i], y[i], x[i + 1], y[i + 1]
        if y0 == y1:
            continue
        sign = 1 if y1 > y0 else -1
        slope = (x1 - x0) / (y1 - y0)
        begin, end = min(max(min(y0, y1), low), high), min(max(max(y0, y1), low), high)
        row = int(begin)
        row += 1 if np.float32(row) < begin else 0
        while np.float32(row) < end:
            at = min(max(x0 + slope * (np.float32(row) - y0), low), high)
            column = int(at)
            column += 1 if np.float32(column) < at else 0
            turns[row - MARGIN, column - MARGIN] += sign
            row += 1
    for row in range(size):
        winding = 0
        for column in range(size):
            winding += turns[row, column]
            if winding != 0:
                mask[row, column] = value
