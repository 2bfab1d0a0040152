"""One compiled call that renders a slice of samples of a `ContoursStream`, with counter-based random numbers."""

import numpy as np
from numba import njit

from ..compiling import kernel
from ..counter_rng import draw64, fold64
from .raster import MARGIN, MASKS, beyond_the_canvas, blend, enclose, half_width, stroke
from .sampler import (
    ATOM,
    LINES,
    MOST_VERTICES,
    PARAMETERS,
    PUBLISHED_SIZE,
    VERTICES,
    advance,
    prepare,
    sample_class,
    sample_instance,
    vertex_stride,
)

_CLASS_KEYS, _SAMPLE_KEYS = np.uint64(1), np.uint64(2)
_PLACE, _NOISE, _COLOR = (np.uint64(part) for part in range(3))
_LINES, _RING = MASKS.index("lines"), MASKS.index("ring")
_BYTE = np.uint64(255)


@njit
def _draw_levels(color_key, line, kind, levels):
    """Levels of a line, at least 64 from the background: 64 … 255 on black (atom), 0 … 191 on white (radial)."""
    bits = draw64(color_key, np.uint64(line))
    for channel in range(levels.size):
        level = 3 * np.int64((bits >> np.uint64(8 * channel)) & _BYTE) // 4
        levels[channel] = level + 64 if kind == ATOM else level


@njit
def _finish(planes, seen, image, mask):
    """Copy planes to image (uint8[S, S, 3]) and add the lines to mask (uint8[S, S]), both without their margins."""
    size = mask.shape[0]
    width = size + 2 * MARGIN
    for row in range(size):
        start = np.uint64((row + MARGIN) * width + MARGIN)
        for column in range(np.uint64(size)):
            p = start + column
            for channel in range(3):
                image[row, column, channel] = planes[min(channel, planes.shape[0] - 1), p]
            mask[row, column] |= seen[p]


@kernel("contours")
def render_slice(sources: int):
    """Render samples of a `ContoursStream`."""

    def render_slice(
        stream_key, indices, classes, kind, fewest, most, least_perlin, most_perlin, mask, color, images, masks
    ):
        """Render sample indices[i] into images[i] (uint8[N, S, S, 3]) and masks[i] (uint8[N, S, S]).

        `kind` is a position in KINDS, `mask` in MASKS.
        """
        _ = sources
        size = images.shape[1]
        width = size + 2 * MARGIN
        scale, half = size / PUBLISHED_SIZE, half_width(size)
        parameters = np.empty(PARAMETERS)
        x, y = np.empty(MOST_VERTICES + 1, np.float32), np.empty(MOST_VERTICES + 1, np.float32)
        first_x, first_y = np.empty_like(x), np.empty_like(y)
        mean_step, noise_step = np.empty((2, MOST_VERTICES), np.float32), np.empty((2, MOST_VERTICES), np.float32)
        segments, line_of = np.empty((3, MOST_VERTICES), np.int32), np.empty((3, MOST_VERTICES), np.float32)
        coverage, touched = np.zeros(width * width, np.uint16), np.empty(width * width + 1, np.int32)
        planes, seen = np.empty((3 if color else 1, width * width), np.uint8), np.empty(width * width, np.uint8)
        levels, turns = np.empty(planes.shape[0], np.int64), np.empty((size, size + 1), np.int16)
        for i in range(indices.size):
            class_key = fold64(fold64(stream_key, _CLASS_KEYS), np.uint64(indices[i] % classes))
            sample_key = fold64(fold64(stream_key, _SAMPLE_KEYS), np.uint64(indices[i]))
            sample_class(class_key, kind, fewest, most, least_perlin, most_perlin, parameters)
            place = sample_instance(fold64(sample_key, _PLACE), kind, parameters)
            center_x = np.float32(place[0] * size + (MARGIN - 0.5))
            center_y = np.float32(place[1] * size + (MARGIN - 0.5))
            stride = vertex_stride(parameters[VERTICES], size)
            count = prepare(kind, parameters, stride, scale, x, y, mean_step, noise_step)
            for vertex in range(count):
                x[vertex] += center_x
                y[vertex] += center_y
            noise_key, color_key = fold64(sample_key, _NOISE), fold64(sample_key, _COLOR)
            planes[:], seen[:], masks[i] = 0 if kind == ATOM else 255, 0, 0
            lines = int(parameters[LINES])
            for line in range(lines):
                advance(fold64(noise_key, np.uint64(line)), count, stride, mean_step, noise_step, x, y)
                if line == 0 and mask == _RING:
                    first_x[: count + 1], first_y[: count + 1] = x[: count + 1], y[: count + 1]
                number = stroke(x, y, count, half, size, segments, line_of, coverage, touched)
                # Vertices move outward, except for rare noise: the following lines will not be visible.
                if number == 0 and beyond_the_canvas(x, y, count, center_x, center_y, size):
                    break
                _draw_levels(color_key, line, kind, levels)
                blend(number, touched, levels, coverage, planes, seen)
            if mask != _LINES:
                enclose(x, y, count, size, turns, 1, masks[i])
            if mask == _RING:
                enclose(first_x, first_y, count, size, turns, 0, masks[i])
            _finish(planes, seen, images[i], masks[i])

    return render_slice
