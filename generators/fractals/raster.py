"""From points of an attractor to pixels: placement on the canvas, histogram, intensities and composite."""

from typing import Literal, get_args

import numpy as np
from numba import njit

from ..counter_rng import uniform64
from .chaos_game import LANES, ROW, START, WIDTH

Render = Literal["graded", "binary", "patch"]
RENDERS: tuple[str, ...] = get_args(Render)
_BINARY, PATCH = RENDERS.index("binary"), RENDERS.index("patch")

_0 = np.float32(0.0)
#: Pixels of the canvas that remain free when a bounding box fills it.
MARGIN = 1.0 / 32.0


@njit
def draw_placement(placement_key, placement):
    """Draw how an image lies on its canvas: placement (float64[6]) = scale x, y; shift x, y in canvases; sign x, y.

    Each axis is scaled by U(.5, 2), shifted by U(-.2, .2) canvases within what keeps the box inside the canvas or the canvas
    inside the box, and flipped half of the time. Returns whether the axes are to be swapped (half of the time, too).
    """
    for axis in range(2):
        draw = np.uint64(4 * axis)
        scale = 0.5 + 1.5 * uniform64(placement_key, draw)
        reach = min(0.2, 0.5 * abs(1.0 - scale))
        placement[axis] = scale
        placement[2 + axis] = reach * (2.0 * uniform64(placement_key, draw + np.uint64(1)) - 1.0)
        placement[4 + axis] = -1.0 if uniform64(placement_key, draw + np.uint64(2)) < 0.5 else 1.0
    return uniform64(placement_key, np.uint64(3)) < 0.5


@njit
def fill_canvas(placement):
    """The placement (float64[6]) in which the bounding box fills the canvas."""
    for axis in range(2):
        placement[axis], placement[2 + axis], placement[4 + axis] = 1.0, 0.0, 1.0


@njit
def pixels_across(placement, axis, size):
    """Pixels that a placement gives to the extent of a box along an axis, negative where it is flipped."""
    return placement[4 + axis] * (placement[axis] * (size - MARGIN))


@njit
def middle(placement, axis, size):
    """The pixel, float32, that a placement gives to the center of a box."""
    return np.float32((0.5 + placement[2 + axis]) * size)


@njit
def fit_box(placement, size, box, affine):
    """Attractor coordinates to pixels: affine (float32[6]) = center x, y; slope x, y; offset x, y, before a swap."""
    xmin, ymin, xmax, ymax = box
    for axis in range(2):
        low, high = (xmin, xmax) if axis == 0 else (ymin, ymax)
        center = np.float32(0.5) * (low + high)
        extent = max(high - low, np.float32(1e-5) * (abs(center) + np.float32(1.0)))
        affine[axis] = center
        affine[2 + axis] = np.float32(pixels_across(placement, axis, size) / extent)
        affine[4 + axis] = middle(placement, axis, size)


@njit
def count_points(track, points, affine, swap, size, cells, counts):
    """Histogram of a track's points: counts (uint32[size * size + 1]), the last entry for those beyond the canvas."""
    for i in range(counts.size):
        counts[i] = 0
    cx, cy, ax, ay, bx, by = affine[0], affine[1], affine[2], affine[3], affine[4], affine[5]
    end = np.float32(size)
    outside = np.int32(size * size)
    stride_x, stride_y = np.int32(size if swap else 1), np.int32(1 if swap else size)
    first = START
    for done in range(0, points, LANES):
        for lane in range(WIDTH):
            u = (track[first + lane] - cx) * ax + bx
            v = (track[first + WIDTH + lane] - cy) * ay + by
            inside = (u >= _0) & (u < end) & (v >= _0) & (v < end)
            cell = np.int32(np.int32(u) * stride_x + np.int32(v) * stride_y)
            cells[lane] = cell if inside else outside
        for lane in range(np.uint64(min(LANES, points - done))):
            counts[np.uint64(cells[lane])] += np.uint32(1)
        first += ROW


@njit
def too_sparse(counts, points):
    """Whether the canvas shows less than a quarter of the points, or fewer pixels of them than 1/64 of all."""
    pixels = counts.size - 1
    lit = np.uint32(0)
    for i in range(np.uint64(pixels)):
        lit += np.uint32(1) if counts[i] > 0 else np.uint32(0)
    return 4 * (points - counts[pixels]) < points or lit < min(pixels // 64, points // 8)


@njit
def box_of_the_fullest(counts, size, affine, swap):
    """A box a quarter of the canvas wide around the fullest pixel of an unmoved placement: excludes rare outer points."""
    fullest = np.argmax(counts[: size * size])
    row, column = fullest // size, fullest % size
    u, v = (row, column) if swap else (column, row)
    x = affine[0] + (u + np.float32(0.5) - affine[4]) / affine[2]
    y = affine[1] + (v + np.float32(0.5) - affine[5]) / affine[3]
    reach_x, reach_y = np.float32(size / 8) / affine[2], np.float32(size / 8) / affine[3]
    return np.float32(x - reach_x), np.float32(y - reach_y), np.float32(x + reach_x), np.float32(y + reach_y)


@njit
def _stamp(mask, size, counts, stamped):
    """Give every point a 3 × 3 patch: stamped = counts summed over the taps of a 9-bit mask."""
    for i in range(size * size):
        stamped[i] = 0
    for tap in range(9):
        if mask >> tap & 1:
            down, right = tap // 3 - 1, tap % 3 - 1
            width = size - abs(right)
            for row in range(max(0, -down), size - max(0, down)):
                source = row * size + max(0, -right)
                taken = counts[source : source + width]
                source += down * size + right
                given = stamped[source : source + width]
                for j in range(width):
                    given[j] += taken[j]


@njit
def patch_mask(render_key):
    """The 9-bit mask of an image's patch, never empty."""
    return 1 + int(uniform64(render_key, np.uint64(0)) * 511.0)


@njit
def palette_entries(kind, render_key, size, counts, stamped, field, entries):
    """entries (uint16[size, size]): the background's 0 … 255 where no point fell, else 256 + intensity, 0 … 255.

    `kind` is a position in RENDERS. binary: 255 everywhere, unless every pixel is lit, which would be a blank image;
    graded and patch: count/max, the count of a patch being summed over a random 3 × 3 mask, one for the image. Returns
    whether every pixel is lit.
    """
    if kind == PATCH:
        _stamp(1 + int(uniform64(render_key, np.uint64(0)) * 511.0), size, counts, stamped)
        counts = stamped
    top, least = np.uint32(1), counts[0]
    for i in range(np.uint64(size * size)):
        top = max(top, counts[i])
        least = min(least, counts[i])
    flat = kind == _BINARY and least == 0
    scale = _0 if flat else np.float32(255.0) / np.float32(top)
    base = np.int32(511 if flat else 256)
    for row in range(size):
        line, below, out = counts[row * size : (row + 1) * size], field[row], entries[row]
        for j in range(np.uint64(size)):
            count = np.int32(line[j])
            entry = base + np.int32(np.float32(count) * scale)
            out[j] = np.uint16(entry if count > 0 else np.int32(below[j]))
    return least > 0


@njit
def composite_row(entries, palette, line):
    """RGB of one row of entries (uint16[size]) by palette (uint8[3, 512]) into line (uint8[≥ 3 * size])."""
    red, green, blue = palette[0], palette[1], palette[2]
    at = np.uint64(0)
    for j in range(np.uint64(entries.size)):
        entry = np.uint64(entries[j])
        line[at] = red[entry]
        line[at + np.uint64(1)] = green[entry]
        line[at + np.uint64(2)] = blue[entry]
        at += np.uint64(3)
