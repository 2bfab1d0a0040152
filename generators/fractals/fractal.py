"""One fractal of one sample: from keys to a system, and from a system to counts on a canvas."""

from typing import NamedTuple

import numpy as np
from numba import njit

from ..counter_rng import fold64
from .chaos_game import EVENLY, LANES, bounding_box, play
from .ifs_sampler import CLASS_KEYS, FACTORS, MAX_MAPS, compose, map_count, sample_factors, sigma_factor
from .jitter import JITTERS, jitter_factors, weigh_a_parameter
from .raster import box_of_the_fullest, count_points, fill_canvas, fit_box, too_sparse

JITTER, CHAOS, PLACEMENT, RENDER, COLOR, BACKGROUND, BLUR = (np.uint64(part) for part in range(7))
SAMPLE_KEYS = np.uint64(2)
ATTEMPTS = 6
#: No swap of the axes. Of numpy's type: functions would be compiled again for a literal False.
AS_DRAWN = np.bool_(False)
_NO_JITTER, _WEIGHT = JITTERS.index("none"), JITTERS.index("fractaldb")


class Workspace(NamedTuple):
    """Workspace, reused from sample to sample."""

    factors: np.ndarray
    system: np.ndarray
    maps: np.ndarray
    limits: np.ndarray
    states: np.ndarray
    track: np.ndarray
    low: np.ndarray
    high: np.ndarray
    placement: np.ndarray
    affine: np.ndarray
    cells: np.ndarray
    counts: np.ndarray
    stamped: np.ndarray


@njit
def workspace(rows, pixels):
    """A `Workspace` for tracks of `rows` rows and canvases of `pixels` pixels."""
    return Workspace(
        np.empty((MAX_MAPS, FACTORS)),
        np.empty((MAX_MAPS, 2, 3)),
        np.empty((6, 8), np.float32),
        np.empty(8, np.uint32),
        np.empty(LANES, np.uint32),
        np.empty(rows * 2 * LANES, np.float32),
        np.empty(2 * LANES, np.float32),
        np.empty(2 * LANES, np.float32),
        np.empty(6),
        np.empty(6, np.float32),
        np.empty(LANES, np.int32),
        np.empty(pixels + 1, np.uint32),
        np.empty(pixels + 1, np.uint32),
    )


@njit
def draw_by_singular_values(stream_key, label, object_key, settings, work):
    """The system of a class, jittered for an instance, into work.system; returns its number of maps."""
    class_key = fold64(fold64(stream_key, CLASS_KEYS), np.uint64(label))
    n = map_count(class_key, settings.fewest, settings.most)
    sample_factors(class_key, n, sigma_factor(class_key, n), settings.even, work.factors)
    jitter_key = fold64(object_key, JITTER)
    if settings.jitter != _NO_JITTER and settings.jitter != _WEIGHT:
        jitter_factors(settings.jitter, jitter_key, n, work.factors)
    compose(work.factors, n, work.system)
    if settings.jitter == _WEIGHT:
        weigh_a_parameter(jitter_key, n, work.system)
    return n


@njit
def play_system(n, even, chaos_key, rows, work):
    """Fill work.track by the chaos game on work.system[:n]."""
    play(work.system, n, even, chaos_key, rows, work.maps, work.limits, work.states, work.track)


@njit
def show(n, swap, chaos_key, points, rows, size, counts, work):
    """Count the points of work.track, which `play_system` filled, on a canvas: counts (uint32[size * size + 1]).

    Placed by work.placement and `swap`. Fallbacks if too little is visible: the whole attractor; then, if most points lie in a
    few pixels, repeated zooms to these; then, if that is a single point because one map dominates, all maps equally often.
    """
    box = bounding_box(work.track, points, work.low, work.high)
    fit_box(work.placement, size, box, work.affine)
    count_points(work.track, points, work.affine, swap, size, work.cells, counts)
    for attempt in range(ATTEMPTS):
        if not too_sparse(counts, points):
            break
        if attempt == ATTEMPTS - 1:
            play_system(n, EVENLY, chaos_key, rows, work)
            box = bounding_box(work.track, points, work.low, work.high)
        elif attempt > 0:
            box = box_of_the_fullest(counts, size, work.affine, swap)
        swap = AS_DRAWN
        fill_canvas(work.placement)
        fit_box(work.placement, size, box, work.affine)
        count_points(work.track, points, work.affine, swap, size, work.cells, counts)
