"""One compiled call that renders a slice of samples of a `DeadLeavesStream`, front to back.

Perfect simulation (Kendall & Thönnes, 1999): the stationary model, seen from above after infinitely many leaves, has the same
distribution as the first leaves seen from below. So each leaf fills what earlier ones left open, and when nothing is open the
image is a sample of the stationary model. Every pixel has 4 × 4 points; a point belongs to the first leaf that contains it.
"""

import numpy as np
from numba import njit

from ..compiling import kernel
from ..counter_rng import draw64, fold64
from .raster import block_width, blocks_between, fill_row, leaf_of, open_blocks, points_held, spans
from .sampler import hit_law, sample_center, sample_outline, sample_radius

_COLOR = np.uint64(16)
_16, _32 = np.uint64(16), np.uint64(32)
_BYTE, _TWO_BYTES, _LEVELS = np.uint64(255), np.uint64(65535), np.uint64(225)
_ALL_POINTS, _POINTS, _NONE = np.uint16(65535), np.uint16(16), np.uint16(0)
#: A leaf that covers more than this share of the canvas is skipped, so no image is a single leaf.
MOST_OF_THE_CANVAS = 0.75


@njit(inline="always")
def _pixel(at, size):
    """The pixel that holds this place on the canvas, or the nearest one."""
    return min(int(min(max(at, 0.0), 1.0) * size), size - 1)


@njit
def _draw_color(leaf_key, color, before):
    """(red, green, blue), each uniform; without color, three times green.

    Green is at least 16 levels, on the circle of 256, from `before`, that of the leaf seen last: two leaves always differ.
    """
    bits = draw64(leaf_key, _COLOR)
    further = np.uint16(((bits & _TWO_BYTES) * _LEVELS) >> _16) + np.uint16(16)
    green = np.uint16((before + further) & 255)
    if not color:
        return green, green, green
    return np.uint16((bits >> _16) & _BYTE), green, np.uint16((bits >> _32) & _BYTE)


@kernel("dead leaves")
def render_slice(sources: int):
    """Render samples of a `DeadLeavesStream`."""

    def render_slice(stream_key, indices, shape, low, high, exponent, most_leaves, color, antialias, images):
        """Render sample indices[i] into images[i] (uint8[N, S, S, 3]); radii low … high in sides of the canvas.

        After most_leaves leaves, the next one fills all open points.
        """
        _ = sources
        size = images.shape[1]
        block = block_width(size)
        law, outline, sides = np.empty((3, 4)), np.empty((4, 2)), np.empty((8, 3), np.float32)
        lines = np.empty((3, 4 * size), np.float32)
        heights, begins, ends = lines[0], lines[1], lines[2]
        first, last = np.empty(4 * size, np.int32), np.empty(4 * size, np.int32)
        open_points, free = np.empty((size, size), np.uint16), np.empty((size, size), np.uint16)
        sums, blocks = np.empty((size, 3, size), np.uint16), np.empty(size, np.uint64)
        hit_law(low, high, exponent, law)
        for i in range(indices.size):
            sample_key = fold64(stream_key, np.uint64(indices[i]))
            open_points[:], free[:], sums[:] = _ALL_POINTS, _POINTS, _NONE
            blocks[:] = blocks_between(0, (size - 1) // block)
            rows_open, number = size, 0
            before = np.uint16(draw64(sample_key, _COLOR) & _BYTE)
            while rows_open > 0:
                leaf_key = fold64(sample_key, np.uint64(number))
                number += 1
                radius = sample_radius(leaf_key, low, high, law)
                x, y = sample_center(leaf_key, radius)
                final = number > most_leaves
                if final:
                    x, y, radius = 0.5, 0.5, 2.0
                left_block, right_block = _pixel(x - radius, size) // block, _pixel(x + radius, size) // block
                under = blocks_between(left_block, right_block)
                top, bottom = _pixel(y - radius, size), _pixel(y + radius, size)
                while top <= bottom and not blocks[top] & under:
                    top += 1
                while top <= bottom and not blocks[bottom] & under:
                    bottom -= 1
                if top > bottom:
                    continue
                corners = 0 if final else sample_outline(leaf_key, shape, x, y, radius, outline)
                leaf = leaf_of(x, y, radius, outline, corners, sides)
                # Only a large leaf can cover so much; its area is at most π radius².
                if 3.2 * radius * radius > MOST_OF_THE_CANVAS and not final:
                    spans(0, size - 1, antialias, leaf, sides, heights, begins, ends, first, last)
                    if points_held(first, last) > MOST_OF_THE_CANVAS * 16 * size * size:
                        continue
                top, bottom = max(top, _pixel(leaf[3], size)), min(bottom, _pixel(leaf[4], size))
                spans(top, bottom, antialias, leaf, sides, heights, begins, ends, first, last)
                red, green, blue = _draw_color(leaf_key, color, before)
                seen = False
                for row in range(np.uint64(top), np.uint64(bottom + 1)):
                    if blocks[row] & under and fill_row(row, red, green, blue, first, last, open_points, free, sums):
                        seen = True
                        blocks[row] = open_blocks(row, blocks[row], left_block, right_block, block, free)
                        rows_open -= 0 if blocks[row] else 1
                if seen:
                    before = green
            for row in range(size):
                for p in range(size):
                    for channel in range(3):
                        images[i, row, p, channel] = np.uint8((sums[row, channel, p] + 8) >> 4)

    return render_slice
