"""One compiled call that renders a slice of samples of a `TextureStream`, with counter-based random numbers."""

import math

import numpy as np
from numba import njit

from ..compiling import kernel
from ..elementary import cos_sin, drawn, folded
from ..palette import (
    ENTRIES,
    EVENNESS,
    MOST_COLORS,
    RELIEF,
    SECOND,
    SECOND_PALETTE,
    draw_palette,
    plain_palette,
    shaded,
)
from .grammar import LONGEST, TASK
from .judge import FLAT, GOOD, judge
from .machine import DEPTH, HEIGHT, SCRATCH, evaluate
from .ops import PARAMETERS
from .paint import LEVELS, extremes, paint, places, to_levels
from .texture_class import (
    CLASS_ATTEMPTS,
    CLASS_LATTICES,
    draw_class,
    draw_lattices,
    draw_view,
    move_parameters,
    plain_class,
)

_CLASS_KEYS, _SAMPLE_KEYS = 1, 2
_MOVE, _LATTICES, _VIEW, _PALETTE, _SECOND_PALETTE, _LIGHT = range(6)
#: Side of the test image of a class.
TRIAL = 48
#: Rejected views of an instance before it uses the fallback program.
ATTEMPTS = 8


@njit
def brightness(image, gray):
    """gray (uint8[S, S]): (77 R + 150 G + 29 B) / 256."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            r, g, b = np.int32(image[y, x, 0]), np.int32(image[y, x, 1]), np.int32(image[y, x, 2])
            gray[y, x] = np.uint8((np.int32(77) * r + np.int32(150) * g + np.int32(29) * b) >> np.int32(8))


@njit
def shows_something(plane, bounds, place, counts, gray):
    """Whether a class's values (float32[TRIAL, TRIAL], replaced by levels) make an image; the rest is workspace.

    The thresholds are stricter than for instances, so that few of those must be drawn again.
    """
    low, high = extremes(plane, bounds[0], bounds[1])
    to_levels(plane, low, high)
    places(plane, 0.5, place)
    for y in range(gray.shape[0]):
        for x in range(gray.shape[1]):
            gray[y, x] = np.uint8(np.int32(np.float32(255.0) * place[np.uint64(np.int32(plane[y, x]))]))
    return high - low > 0.05 and judge(gray, counts, 40.0, 0.6, 0.5) == GOOD


@kernel("textures")
def render_slice(sources: int):
    """Render samples of a `TextureStream`."""

    def render_slice(
        stream_key,
        indices,
        classes,
        least,
        most,
        variation,
        color,
        samples,
        width,
        taken,
        codes,
        parameters,
        lengths,
        style,
        images,
    ):
        """Render sample indices[i] into images[i] (uint8[N, S, S, 3]); with no images, only draw the programs.

        samples: of a pixel, each way. width: pixels that programs run for at a time. taken (int8[M]): which attempt at each
        of the classes below M shows something, -1 where unknown; filled in here. codes (int32[LONGEST]), parameters
        (float32[LONGEST, PARAMETERS]), lengths (int64[2]), style (float64[STYLE]): the program of a class; at the end that
        of the last one, unless that could not be shown.
        """
        _ = sources
        size = images.shape[1]
        grid = size * samples
        points, values = np.empty((DEPTH, 3, width), np.float32), np.empty((HEIGHT, width), np.float32)
        tones, scratch = np.empty(DEPTH, np.int64), np.empty((SCRATCH, width), np.float32)
        salts, view = np.empty(LONGEST, np.uint32), np.empty(6, np.float32)
        moved = np.empty((LONGEST, PARAMETERS), np.float32)
        cursor, tasks, stops = np.empty(1, np.uint64), np.empty((LONGEST, TASK)), np.empty((MOST_COLORS, 3))
        trial, planes = np.empty((1, TRIAL, TRIAL), np.float32), np.empty((2, grid, grid), np.float32)
        bounds, counts = np.empty((2, max(grid, TRIAL)), np.float32), np.empty(16, np.int64)
        place, colors = np.empty(LEVELS, np.float32), np.empty((2, 3, LEVELS), np.float32)
        palettes = np.empty((2, 3, ENTRIES), np.float32)
        sums, shade = np.empty((3, size), np.float32), np.empty(grid, np.float32)
        gray, trial_gray = np.empty((size, size), np.uint8), np.empty((TRIAL, TRIAL), np.uint8)
        usual_extent = min(math.sqrt(size / 64.0), size / 40.0)
        for i in range(indices.size):
            sample_key = folded(folded(stream_key, _SAMPLE_KEYS), indices[i])
            label = indices[i] % classes
            known = np.int64(taken[label]) if label < taken.size else -1
            attempt = max(known, 0)
            while True:
                class_key = folded(folded(folded(stream_key, _CLASS_KEYS), label), attempt)
                layers = draw_class(class_key, attempt, least, most, cursor, tasks, codes, parameters, lengths, style)
                if known >= 0 or attempt == CLASS_ATTEMPTS:
                    break
                draw_lattices(folded(class_key, CLASS_LATTICES), lengths[0], salts)
                view[0], view[1], view[2], view[3], view[4], view[5] = 1, 0, 0, 0, 1, 0
                evaluate(codes, parameters, salts, lengths, 1, view, points, values, tones, scratch, trial)
                if shows_something(trial[0], bounds, place, counts, trial_gray):
                    break
                attempt += 1
            if label < taken.size:
                taken[label] = attempt
            if images.shape[0] == 0:
                continue
            extent = usual_extent
            for attempt in range(ATTEMPTS + 1):
                if attempt == ATTEMPTS:
                    plain_class(codes, parameters, lengths, style)
                    layers, extent = 1, usual_extent
                key = folded(sample_key, attempt)
                move_parameters(folded(key, _MOVE), variation, codes, lengths[layers - 1], parameters, moved)
                draw_lattices(folded(key, _LATTICES), lengths[layers - 1], salts)
                draw_view(folded(key, _VIEW), variation, extent, view)
                evaluate(codes, moved, salts, lengths, layers, view, points, values, tones, scratch, planes)
                for layer in range(layers):
                    low, high = extremes(planes[layer], bounds[0], bounds[1])
                    to_levels(planes[layer], low, high)
                places(planes[0], style[EVENNESS], place)
                if attempt == ATTEMPTS:
                    plain_palette(palettes[0])
                else:
                    draw_palette(folded(key, _PALETTE), style, color, stops, palettes[0])
                if style[SECOND] == SECOND_PALETTE:
                    draw_palette(folded(key, _SECOND_PALETTE), style, color, stops, palettes[1])
                else:
                    shaded(palettes[0], palettes[1])
                light = cos_sin(drawn(folded(key, _LIGHT), 0))
                relief, image, two = style[RELIEF] / extent, images[i], layers == 2
                paint(planes[0], planes[1], place, palettes, two, relief, light, samples, colors, sums, shade, image)
                brightness(image, gray)
                verdict = judge(gray, counts, 18.0, 0.8, 0.3)
                if verdict == GOOD:
                    break
                # Flat images show more of the plane next time; images that are too fine show less.
                extent *= 1.25 if verdict == FLAT else 0.7

    return render_slice
