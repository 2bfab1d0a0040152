"""Strokes: line segments with a width at each end and round caps, their coverage of pixels, and their middle lines.

A point of the plane belongs to a stroke if its distance to the segment is at most half the width at the nearest point of the
segment. Pixel (row, column) has its center at (column + 1/2, row + 1/2). Only the pixels about a stroke are visited.
"""

import math

import numpy as np
from numba import njit

from .turtle import WIDTH0, WIDTH1, X0, X1, Y0, Y1

#: Half of the ramp from covered to uncovered: a pixel's coverage is what half the width exceeds the distance by, plus this.
_RAMP = 0.5
_SLACK = 1e-6
_TINY = 1e-18


@njit(inline="always")
def _first_center(low, size):
    """Number of the first pixel whose center is at or after `low`, between 0 and size."""
    return math.ceil(min(max(low - 0.5, 0.0), float(size)))


@njit(inline="always")
def _past_center(high, size):
    """1 + the number of the last pixel whose center is at or before `high`, between 0 and size."""
    return math.floor(min(max(high + 0.5, 0.0), float(size)))


@njit
def paint_stroke(segment, color, softness, mask, widths, alpha, layer):
    """Add a stroke (float64[6]) in a color (float32[3], 0 … 255) to an image's layers; returns how many pixels joined the mask.

    - mask, uint8[S, S]: 1 where the pixel's center is in the stroke. widths, float32[S, S]: there the local width, if wider.
    - alpha, float32[S, S]: coverage in [0, 1] times 1 - softness r², r = distance / (half width + ½), if that is more.
    - layer, float32[S, S, 3]: color, mixed by coverage with that of earlier strokes; meaningless where alpha is 0.
    """
    size = mask.shape[0]
    x0, y0, x1, y1 = segment[X0], segment[Y0], segment[X1], segment[Y1]
    h0, widening = 0.5 * segment[WIDTH0], 0.5 * (segment[WIDTH1] - segment[WIDTH0])
    dx, dy = x1 - x0, y1 - y0
    length = math.sqrt(dx * dx + dy * dy)
    inverse = 1.0 / max(length * length, _TINY)
    reach = max(h0, h0 + widening) + _RAMP + _SLACK
    left, right = min(x0, x1) - reach, max(x0, x1) + reach
    steep = abs(dy) > 1e-3 * length
    slope = dx / dy if steep else 0.0
    half_chord = reach * length / abs(dy) if steep else 0.0
    joined = 0
    for row in range(_first_center(min(y0, y1) - reach, size), _past_center(max(y0, y1) + reach, size)):
        py = row + 0.5 - y0
        low, high = left, right
        if steep:
            middle = x0 + py * slope
            low, high = max(low, middle - half_chord), min(high, middle + half_chord)
        for column in range(_first_center(low, size), _past_center(high, size)):
            px = column + 0.5 - x0
            t = min(max((px * dx + py * dy) * inverse, 0.0), 1.0)
            ex, ey = px - t * dx, py - t * dy
            half, square = h0 + t * widening, ex * ex + ey * ey
            outer = half + _RAMP
            if square >= outer * outer:
                continue
            distance = math.sqrt(square)
            if distance <= half:
                joined += 1 - mask[row, column]
                mask[row, column] = 1
                widths[row, column] = max(widths[row, column], np.float32(2.0 * half))
            coverage = min(outer - distance, 1.0)
            before = alpha[row, column]
            alpha[row, column] = max(before, np.float32(coverage * (1.0 - softness * square / (outer * outer))))
            share = np.float32(coverage) if before > 0.0 else np.float32(1.0)
            for channel in range(3):
                old = layer[row, column, channel] if before > 0.0 else np.float32(0.0)
                layer[row, column, channel] = old + share * (color[channel] - old)
    return joined


@njit
def _along(a0, b0, a1, b1, by_rows, centerline):
    """Mark, for every pixel center from a0 to a1 along the longer axis, the pixel that the line passes there."""
    size = centerline.shape[0]
    slope = (b1 - b0) / (a1 - a0) if a1 != a0 else 0.0
    for a in range(_first_center(min(a0, a1), size), _past_center(max(a0, a1), size)):
        b = b0 + (a + 0.5 - a0) * slope
        if 0.0 <= b < size:
            if by_rows:
                centerline[a, int(b)] = 1
            else:
                centerline[int(b), a] = 1


@njit
def trace_middle(segment, centerline):
    """Mark the middle line of a stroke in centerline (uint8[S, S]): one pixel a step of the longer axis, and both ends.

    The line is 8-connected, segments that meet share a pixel, and all of it is in the mask if widths are at least √2.
    """
    size = centerline.shape[0]
    x0, y0, x1, y1 = segment[X0], segment[Y0], segment[X1], segment[Y1]
    if abs(x1 - x0) >= abs(y1 - y0):
        _along(x0, y0, x1, y1, False, centerline)
    else:
        _along(y0, x0, y1, x1, True, centerline)
    for x, y in ((x0, y0), (x1, y1)):
        if 0.0 <= x < size and 0.0 <= y < size:
            centerline[int(y), int(x)] = 1
