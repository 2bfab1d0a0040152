"""Systems accepted by their filling rate: FractalDB (Kataoka et al., 2020) and 1p-frac (Nakamura et al., 2024).

Maps with six uniform parameters are not contractions in general: many systems diverge or light only a few pixels. A class is
the first of its draws that stays bounded and fills the canvas; the search is a pure function of the class.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..compiling import kernel
from ..counter_rng import fold64, uniform64
from .chaos_game import BY_DETERMINANT, LANES, ROW, START, WIDTH, bounding_box, is_bounded, rows_for
from .fractal import CHAOS, play_system, workspace
from .ifs_sampler import MAX_MAPS, MAX_SINGULAR, compose, copy_system, sample_factors
from .jitter import weight_of
from .raster import fill_canvas, fit_box

#: The published test: 100 000 points on 512 × 512 pixels, 6 of them left free at each border.
SEARCH_POINTS, SEARCH_SIZE, SEARCH_PAD = 100_000, 512, 6
SEARCH_ATTEMPTS = 4000
#: A first test with few points rejects most draws. Of 300 classes found without it, it would have rejected none.
LOOK_POINTS = 10_000
LOOK_ROWS = rows_for(LOOK_POINTS)
TAMEST = 4


class Origin(NamedTuple):
    """How systems are drawn: one of the three kinds below, with fewest to most maps.

    BY_PARAMETERS: all parameters ~ U(-1, 1). BY_SINGULAR_VALUES: of σ-factor U(amount - .1, amount + .1). AROUND_ONE: `base`
    (float64[n, 2, 3]) with every parameter p changed to p + amount U(-1/2, 1/2) if `additive`, else p U(1 - amount, 1 + amount).
    """

    kind: int
    fewest: int
    most: int
    amount: float
    additive: bool
    base: np.ndarray


BY_PARAMETERS, BY_SINGULAR_VALUES, AROUND_ONE = range(3)


@njit
def draw_system(system_key, origin, factors, system):
    """A new system into system (float64[MAX_MAPS, 2, 3]); returns its number of maps."""
    n = origin.fewest + int(uniform64(system_key, np.uint64(0)) * (origin.most - origin.fewest + 1))
    if origin.kind == BY_SINGULAR_VALUES:
        alpha = origin.amount - 0.1 + 0.2 * uniform64(system_key, np.uint64(1))
        sample_factors(system_key, n, min(alpha, 3.0 * MAX_SINGULAR * n), False, factors)
        compose(factors, n, system)
        return n
    for i in range(n):
        for row in range(2):
            for column in range(3):
                u = uniform64(system_key, np.uint64(1 + 6 * i + 3 * row + column))
                if origin.kind == BY_PARAMETERS:
                    system[i, row, column] = 2.0 * u - 1.0
                elif origin.additive:
                    system[i, row, column] = origin.base[i, row, column] + origin.amount * (u - 0.5)
                else:
                    system[i, row, column] = origin.base[i, row, column] * (1.0 + origin.amount * (2.0 * u - 1.0))
    return n


@njit
def weigh_instance(row, step, tame, n, system):
    """Make system[:n] the instance of its class in row 0 … 24 of FractalDB's weights, in place.

    Row 0 leaves it as it is; the others multiply one of the six parameters of all maps by 1 ± step or 1 ± 2 step. `tame`
    0 … 3 brings the weight nearer to 1: by nothing, a half, three quarters, all. With TAMEST all maps are made contractions.
    """
    if row > 0 and tame < 3:
        parameter, which = (row - 1) // 4, (row - 1) % 4
        offset = step * (weight_of(which) - 1.0) / 0.4
        weight = 1.0 + offset * (1.0 if tame == 0 else 0.5 if tame == 1 else 0.25)
        for i in range(n):
            system[i, parameter // 3, parameter % 3] *= weight
    if tame == TAMEST:
        for i in range(n):
            square = 0.0
            for row in range(2):
                for column in range(2):
                    square += system[i, row, column] * system[i, row, column]
            shrink = 0.9 / max(0.9, np.sqrt(square))
            for row in range(2):
                for column in range(2):
                    system[i, row, column] *= shrink


@njit
def play_bounded(system, n, instance, step, chaos_key, settings, work):
    """The chaos game on system[:n], weighted for an instance with this `step` (0: not), as tame as it must be to stay bounded.

    Instances count through flips first (4), then through the 25 rows of weights.
    """
    for tame in range(TAMEST + 1):
        copy_system(system, n, work.system)
        weigh_instance((instance // 4) % 25 if step > 0.0 else 0, step, tame, n, work.system)
        play_system(n, BY_DETERMINANT, chaos_key, settings.rows, work)
        if is_bounded(work.track, settings.points):
            break


@njit
def _lit_pixels(points, stamp, stamps, work):
    """How many of SEARCH_SIZE² pixels the first points of work.track light when their bounding box fills all except the border.

    stamps (uint32[pixels]) holds numbers below `stamp` (uint32) at pixels that this system has not lit, so it is never cleared.
    """
    inner = SEARCH_SIZE - 2 * SEARCH_PAD
    box = bounding_box(work.track, points, work.low, work.high)
    fill_canvas(work.placement)
    fit_box(work.placement, inner, box, work.affine)
    cx, cy, ax, ay, bx, by = work.affine
    lit = 0
    first = START
    for done in range(0, points, LANES):
        for lane in range(WIDTH):
            u = (work.track[first + lane] - cx) * ax + bx
            v = (work.track[first + WIDTH + lane] - cy) * ay + by
            work.cells[lane] = np.int32(v) * np.int32(inner) + np.int32(u)
        for lane in range(np.uint64(min(LANES, points - done))):
            cell = np.uint64(work.cells[lane])
            lit += 1 if stamps[cell] != stamp else 0
            stamps[cell] = stamp
        first += ROW
    return lit


def _first_look(rate: float) -> float:
    """Pixels that LOOK_POINTS must light: 90 % of the expected number if points are uniform and just pass the test."""
    if rate == 0.0:
        return 0.0
    needed, pixels = rate * SEARCH_SIZE**2, rate * SEARCH_SIZE**2
    while pixels * -math.expm1(-SEARCH_POINTS / pixels) < needed:
        pixels *= 1.01
    return 0.9 * pixels * -math.expm1(-LOOK_POINTS / pixels)


@kernel("the search for fractal classes")
def search(sources: int):
    """Find systems that fill the canvas."""

    def find(keys, origin, needed, needed_at_once, rows, counts, systems):
        """The first draw of keys[i] that lights `needed` pixels, into systems[i] (float64[N, 8, 2, 3]) with counts[i] maps.

        Where none of SEARCH_ATTEMPTS draws does, the one that lights most.
        """
        _ = sources
        work = workspace(rows, 1)
        stamps = np.zeros(SEARCH_SIZE * SEARCH_SIZE, np.uint32)
        stamp = np.uint32(0)
        for i in range(keys.size):
            fullest = fullest_at_once = -1
            for attempt in range(SEARCH_ATTEMPTS):
                system_key = fold64(keys[i], np.uint64(attempt))
                n = draw_system(system_key, origin, work.factors, work.system)
                chaos_key = fold64(system_key, CHAOS)
                play_system(n, BY_DETERMINANT, chaos_key, LOOK_ROWS, work)
                lit = 0
                if is_bounded(work.track, LOOK_POINTS):
                    stamp += np.uint32(1)
                    lit = _lit_pixels(LOOK_POINTS, stamp, stamps, work)
                if fullest < 0 and lit > fullest_at_once:
                    fullest_at_once = lit
                    counts[i] = n
                    systems[i] = 0.0
                    copy_system(work.system, n, systems[i])
                if lit < needed_at_once:
                    continue
                play_system(n, BY_DETERMINANT, chaos_key, rows, work)
                if not is_bounded(work.track, SEARCH_POINTS):
                    continue
                stamp += np.uint32(1)
                lit = _lit_pixels(SEARCH_POINTS, stamp, stamps, work)
                if lit > fullest:
                    fullest = lit
                    counts[i] = n
                    systems[i] = 0.0
                    copy_system(work.system, n, systems[i])
                if lit >= needed:
                    break

    return find


def find_systems(
    keys: NDArray[np.uint64], origin: Origin, rate: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The systems of some keys: the first draw of each whose filling rate in the published test is at least `rate`.

    Returns systems float64[N, 8, 2, 3] as [A | b], of which the first `counts` (int64[N]) maps are used.
    """
    systems, counts = np.zeros((keys.size, MAX_MAPS, 2, 3)), np.zeros(keys.size, np.int64)
    search(keys, origin, rate * SEARCH_SIZE**2, _first_look(rate), rows_for(SEARCH_POINTS), counts, systems)
    return systems, counts
