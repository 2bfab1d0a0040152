"""One compiled call that renders a slice of samples of a `NeuralFractalStream`, with counter-based random numbers."""

import numpy as np
from numba import njit

from ..compiling import kernel
from ..elementary import folded
from ..palette import ENTRIES, EVENNESS, MOST_COLORS, STYLE, draw_palette, draw_style, saturate, shaded
from .escape import TRIAL, flaw, iterate, point_of, spread_levels, try_view
from .fractal_class import FLAT, NETWORK, SHADED, draw_class, vary
from .network import LANES, MOST_UNITS

_CLASS_KEYS, _SAMPLE_KEYS = np.int64(1), np.int64(2)
_NUMBERS, _STYLE = np.int64(0), np.int64(1)
_VARY, _PALETTE, _SECOND_PALETTE = (np.int64(part) for part in range(3))
#: Draws of a class, until one has structure; the least flawed is taken if none has.
CLASS_ATTEMPTS = 100
#: Draws of an instance, each varied half as much as the one before; the last shows its class as it is.
ATTEMPTS = 5
#: An instance may be this much less than structured.
_TOLERANCE = 0.08
_0, _1, _LAST = np.float32(0.0), np.float32(1.0), np.float32(ENTRIES - 1)


@njit
def _find_class(key, known, settings, network, view, z, c, hidden, sizes, times, counts):
    """Draw a class's network and view; `known` is the attempt to take, -1 if it is to be found. Returns it and `draw_class`'s."""
    best, least = 0, 1e9
    for attempt in range(CLASS_ATTEMPTS):
        if known >= 0:
            break
        iterations, share, shown = draw_class(folded(folded(key, attempt), _NUMBERS), settings, network, view)
        units, layers, power = settings.units, settings.layers, settings.power
        try_view(network, units, layers, power, iterations, view, share, z, c, hidden, sizes, times)
        found = flaw(times, iterations, counts)
        if found < least:
            best, least = attempt, found
        if found == 0.0:
            break
    attempt = known if known >= 0 else best
    iterations, share, shown = draw_class(folded(folded(key, attempt), _NUMBERS), settings, network, view)
    return attempt, iterations, share, shown


@njit(error_model="numpy")
def _color(entry, table, pixel, sums):
    """Add the color at a place in [0, 1] of a palette to a pixel."""
    k = np.uint64(np.int32(entry * _LAST))
    for channel in range(3):
        sums[3 * pixel + channel] += np.uint16(np.int32(table[channel, k]))


@njit(error_model="numpy")
def _paint(network, settings, iterations, view, limit, places, evenness, palettes, size, z, c, hidden, state, at, sums):
    """Sums of the colors of all samples of a pixel into sums (uint16[3 S²]).

    LANES orbits are iterated together; one that has escaped, or has had all its iterations, makes place for the next sample.
    state (float32[3, LANES]): |z| now and before, and its least so far; at (int64[2, LANES]): pixel and iterations.
    """
    samples = settings.samples
    each, grid = samples * samples, size * samples
    following, n = np.int64(0), np.int64(0)
    total = size * size * each
    sums[:] = 0
    scale = evenness / np.float32(iterations)
    while following < total or n > 0:
        while n < LANES and following < total:
            pixel, sub = following // each, following % each
            row, column = pixel // size * samples + sub // samples, pixel % size * samples + sub % samples
            point_of(view, (column + 0.5) / grid, (row + 0.5) / grid, n, c)
            z[0, n] = z[1, n] = state[1, n] = _0
            state[2, n] = limit
            at[0, n], at[1, n] = pixel, 0
            following += 1
            n += 1
        iterate(network, settings.units, settings.layers, settings.power, z, c, n, hidden, state[0])
        kept = np.int64(0)
        for k in range(n):
            length, before, pixel, step = state[0, k], state[1, k], at[0, k], at[1, k]
            least = length if length < state[2, k] else state[2, k]
            if length > limit:
                part = (limit - before) / (length - before)
                place = places[step] + part * (places[step + 1] - places[step])
                time = (np.float32(step) + part) * scale
                _color(place * (_1 - evenness) + time, palettes[0], pixel, sums)
            elif step + 1 == iterations:
                _color(least / limit, palettes[1], pixel, sums)
            else:
                for part in range(2):
                    z[part, kept], c[part, kept] = z[part, k], c[part, k]
                state[1, kept], state[2, kept], at[0, kept], at[1, kept] = length, least, pixel, step + 1
                kept += 1
        n = kept


@kernel("neural fractals")
def render_slice(sources: int):
    """Render samples of a `NeuralFractalStream`."""

    def render_slice(stream_key, indices, classes, settings, taken, images):
        """Render sample indices[i] into images[i] (uint8[N, S, S, 3]).

        taken (int8[M]): which attempt at each of the classes below M has structure, -1 where unknown; filled in here.
        """
        _ = sources
        size = images.shape[1]
        units, layers, power = settings.units, settings.layers, settings.power
        network, moved = np.zeros(NETWORK, np.float32), np.zeros(NETWORK, np.float32)
        view, seen = np.empty(5, np.float32), np.empty(5, np.float32)
        z, c = np.empty((2, LANES), np.float32), np.empty((2, LANES), np.float32)
        hidden = np.empty((2, MOST_UNITS, 2, LANES), np.float32)
        sizes, places = np.empty((settings.most + 1, LANES), np.float32), np.empty(settings.most + 2, np.float32)
        times, counts = np.empty(TRIAL * TRIAL, np.int64), np.empty(settings.most + 1, np.int64)
        state, at = np.empty((3, LANES), np.float32), np.empty((2, LANES), np.int64)
        style, stops, palettes = np.empty(STYLE), np.empty((MOST_COLORS, 3)), np.empty((2, 3, ENTRIES), np.float32)
        sums = np.empty(3 * size * size, np.uint16)
        each = settings.samples * settings.samples
        for i in range(indices.size):
            sample_key = folded(folded(stream_key, _SAMPLE_KEYS), indices[i])
            label = indices[i] % classes
            class_key = folded(folded(stream_key, _CLASS_KEYS), label)
            known = np.int64(taken[label]) if label < taken.size else -1
            attempt, iterations, share, shown = _find_class(
                class_key, known, settings, network, view, z, c, hidden, sizes, times, counts
            )
            if label < taken.size:
                taken[label] = attempt
            strength, vary_key = settings.variation, folded(sample_key, _VARY)
            for attempt in range(ATTEMPTS):
                last = attempt == ATTEMPTS - 1
                vary(folded(vary_key, attempt), 0.0 if last else strength, settings, network, view, moved, seen)
                limit = try_view(moved, units, layers, power, iterations, seen, share, z, c, hidden, sizes, times)
                if flaw(times, iterations, counts) <= _TOLERANCE:
                    break
                strength *= 0.5
            spread_levels(times, iterations, places)
            draw_style(folded(class_key, _STYLE), style)
            draw_palette(folded(sample_key, _PALETTE), style, settings.color, stops, palettes[0])
            saturate(palettes[0], 1.7)
            if shown == SHADED:
                shaded(palettes[0], palettes[1])
            else:
                draw_palette(folded(sample_key, _SECOND_PALETTE), style, settings.color, stops, palettes[1])
                saturate(palettes[1], 1.7)
            if shown == FLAT:
                for channel in range(3):
                    palettes[1, channel] = palettes[1, channel, 0]
            evenness = np.float32(0.5 * style[EVENNESS])
            _paint(
                moved,
                settings,
                iterations,
                seen,
                limit,
                places,
                evenness,
                palettes,
                size,
                z,
                c,
                hidden,
                state,
                at,
                sums,
            )
            image = images[i].reshape(-1)
            for k in range(image.size):
                image[k] = np.uint8((np.int64(sums[k]) + each // 2) // each)

    return render_slice
