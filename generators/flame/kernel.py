"""One compiled call that renders a slice of samples of a `FlameStream`, with counter-based random numbers."""

from typing import NamedTuple

import numpy as np
from numba import njit

from ..color import background_table
from ..compiling import kernel
from ..diamond_square import byte_field, field_space
from ..elementary import cos_sin, drawn, exp, folded
from ..palette import BANDS, COLORS, COSINES, ENTRIES, KIND, MOST_COLORS, STYLE, draw_palette, draw_style, saturate
from .canvas import (
    TONES,
    composite,
    count_points,
    middle_and_spread,
    set_view,
    smooth,
    tone_table,
    usual_density,
    vivid,
)
from .code import draw_code, empty_code, vary
from .orbit import BURN_IN, ROWS, shown_points, start_pool, step_pool
from .variations import POOL

_CLASS_KEYS, _SAMPLE_KEYS = np.int64(1), np.int64(2)
_CODE, _STYLE = np.int64(0), np.int64(1)
_VARY, _START, _SHUFFLE, _VIEW, _PALETTE, _TONE, _COLOR, _BACKGROUND = (np.int64(part) for part in range(8))
#: Draws of a class, until one fills enough of its view; the best is taken if none does.
CLASS_ATTEMPTS = 100
#: Draws of an instance, each varied half as much as the one before; the last shows its class as it is.
ATTEMPTS = 4
#: Steps that decide on the view, and side of the canvas on which a code is judged by them.
FRAMES, TRIAL = 8, np.int64(32)
#: Most of a trial's points in one pixel.
FULLEST = 0.08
#: The part of the filling rate of classes that instances must have.
_TOLERANCE = 0.7


class Settings(NamedTuple):
    """The arguments of a `FlameStream`, as kernels take them; levels are those of a background."""

    points: int
    fewest: int
    most: int
    symmetric: float
    final: float
    variation: float
    filling: float
    color: bool
    background: bool
    levels: int


class Workspace(NamedTuple):
    """Workspace, reused from sample to sample."""

    pool: np.ndarray
    start: np.ndarray
    moved: np.ndarray
    space: np.ndarray
    seen: np.ndarray
    frames: np.ndarray
    tints: np.ndarray
    cells: np.ndarray
    placed: np.ndarray
    trial: np.ndarray


@njit
def _workspace():
    return Workspace(
        np.empty((3, POOL), np.float32),
        np.empty((3, POOL), np.float32),
        np.empty((3, POOL), np.float32),
        np.empty((ROWS, POOL), np.float32),
        np.empty((2, POOL), np.float32),
        np.empty((2, FRAMES * POOL), np.float32),
        np.empty(FRAMES * POOL, np.float32),
        np.empty(POOL, np.int64),
        np.empty(6, np.float32),
        np.empty(TRIAL * TRIAL + 1, np.uint64),
    )


@njit
def _start(code, key, work):
    """Run the chaos game up to the first FRAMES steps that count; returns (x, y, deviation) of their points."""
    start_pool(folded(key, _START), work.pool, work.start)
    shuffle = folded(key, _SHUFFLE)
    for step in range(BURN_IN + FRAMES):
        step_pool(code, shuffle, step, work.pool, work.start, work.moved, work.space)
        if step >= BURN_IN:
            first = (step - BURN_IN) * POOL
            u, v = work.frames[0, first:], work.frames[1, first:]
            shown_points(code, work.moved, work.space, u, v)
            for k in range(POOL):
                work.tints[first + k] = work.moved[2, k]
    return middle_and_spread(work.frames, FRAMES * POOL)


@njit
def _flaw(bulk, filling, work):
    """How far the first steps are from lighting `filling` of a trial's pixels, none too much: 0 if they do, else more than 0."""
    set_view(bulk[0], bulk[1], TRIAL / (5.0 * bulk[2]), 1.0, 0.0, 1.0, TRIAL, work.placed)
    work.trial[:] = 0
    for frame in range(FRAMES):
        first = frame * POOL
        u, v, tint = work.frames[0, first:], work.frames[1, first:], work.tints[first:]
        count_points(u, v, tint, work.placed, TRIAL, work.cells, work.trial)
    lit, fullest = 0, np.uint64(0)
    for k in range(TRIAL * TRIAL):
        points = work.trial[k] >> np.uint64(32)
        lit += 1 if points > 0 else 0
        fullest = max(fullest, points)
    return max(0.0, filling - lit / (TRIAL * TRIAL)) + max(0.0, np.float64(fullest) / (FRAMES * POOL) - FULLEST)


@njit
def _find_class(key, known, settings, code, work):
    """The code of a class; `known` is the attempt to take, -1 if it is to be found. Returns the attempt."""
    best, least = known, 1e9
    for attempt in range(CLASS_ATTEMPTS):
        if known >= 0:
            break
        attempt_key = folded(folded(key, attempt), _CODE)
        draw_code(attempt_key, settings.fewest, settings.most, settings.symmetric, settings.final, code)
        flaw = _flaw(_start(code, attempt_key, work), settings.filling, work)
        if flaw < least:
            best, least = attempt, flaw
        if flaw == 0.0:
            break
    attempt_key = folded(folded(key, best), _CODE)
    draw_code(attempt_key, settings.fewest, settings.most, settings.symmetric, settings.final, code)
    return best


@kernel("flames")
def render_slice(sources: int):
    """Render samples of a `FlameStream`."""

    def render_slice(stream_key, indices, classes, settings, taken, images):
        """Render sample indices[i] into images[i] (uint8[N, S, S, 3]).

        taken (int8[M]): which attempt at each of the classes below M fills its view, -1 where unknown; filled in here.
        """
        _ = sources
        size = images.shape[1]
        work, clouds = _workspace(), field_space(size, settings.levels)
        code, varied = empty_code(), empty_code()
        counts = np.empty(size * size + 1, np.uint64)
        density, tint = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
        tones, backdrop = np.empty(TONES, np.float32), np.zeros((3, 256), np.uint8)
        style, stops, table = np.empty(STYLE), np.empty((MOST_COLORS, 3)), np.empty((3, ENTRIES), np.float32)
        for i in range(indices.size):
            sample_key = folded(folded(stream_key, _SAMPLE_KEYS), indices[i])
            label = indices[i] % classes
            class_key = folded(folded(stream_key, _CLASS_KEYS), label)
            known = np.int64(taken[label]) if label < taken.size else -1
            attempt = _find_class(class_key, known, settings, code, work)
            if label < taken.size:
                taken[label] = attempt
            strength = settings.variation
            for attempt in range(ATTEMPTS):
                last = attempt == ATTEMPTS - 1
                vary(folded(folded(sample_key, _VARY), attempt), 0.0 if last else strength, code, varied)
                bulk = _start(varied, sample_key, work)
                if _flaw(bulk, _TOLERANCE * settings.filling, work) == 0.0:
                    break
                strength *= 0.5
            key = folded(sample_key, _VIEW)
            c, s = cos_sin(drawn(key, 0))
            across = (3.2 + 2.2 * drawn(key, 1)) * bulk[2]
            mirror = -1.0 if drawn(key, 2) < 0.5 else 1.0
            x, y = bulk[0] + 0.1 * across * (drawn(key, 3) - 0.5), bulk[1] + 0.1 * across * (drawn(key, 4) - 0.5)
            set_view(x, y, size / across, c, s, mirror, size, work.placed)
            counts[:] = 0
            shuffle, steps = folded(sample_key, _SHUFFLE), -(-settings.points // POOL)
            for step in range(steps):
                if step < FRAMES:
                    first = step * POOL
                    u, v, tints = work.frames[0, first:], work.frames[1, first:], work.tints[first:]
                else:
                    step_pool(varied, shuffle, BURN_IN + step, work.pool, work.start, work.moved, work.space)
                    u, v, tints = work.seen[0], work.seen[1], work.moved[2]
                    shown_points(varied, work.moved, work.space, u, v)
                count_points(u, v, tints, work.placed, size, work.cells, counts)
            smooth(counts, size, density, tint)
            key = folded(sample_key, _TONE)
            gamma, vibrancy = 1.0 + 1.5 * drawn(key, 0), 0.4 + 0.6 * drawn(key, 1)
            tone_table(exp(1.0 + 3.0 * drawn(key, 2)), gamma, tones)
            draw_style(folded(class_key, _STYLE), style)
            if style[KIND] == BANDS:  # whose borders would be noise, where colors of points mix
                style[KIND] = COSINES
            style[COLORS] = max(style[COLORS], 3.0)
            draw_palette(folded(sample_key, _PALETTE), style, settings.color, stops, table)
            saturate(table, 2.0)
            vivid(table, vibrancy, gamma)
            if settings.background:
                background_table(folded(sample_key, _COLOR), settings.color, backdrop)
                backdrop >>= np.uint8(1)  # so that flames are brighter
                byte_field(folded(sample_key, _BACKGROUND), size, settings.levels, clouds)
            composite(density, tint, usual_density(density), tones, table, backdrop, clouds.field, images[i])

    return render_slice
