"""Escape times of z ← g(z) + c from z = 0, one c a pixel, and the threshold that gives an image structure.

A network is nearly bounded: no radius beyond which every orbit escapes is known in advance, as 2 is for Mandelbrot's set. The
threshold is therefore measured: it is the one that a given share of the points of a coarse grid exceeds.
"""

import math

import numpy as np
from numba import njit

from .network import LANES, apply_network

#: Side of the coarse grid.
TRIAL = 24
#: Values of |z| beyond this, near poles of tanh, count as this.
CAP = np.float32(1000.0)
_0, _1, _HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)


@njit(error_model="numpy")
def iterate(network, units, layers, power, z, c, n, hidden, size):
    """One step of n orbits: z ← g(z) + c (float32[2, LANES]) and |z| into size (float32[LANES]), at most CAP."""
    value = apply_network(network, units, layers, power, z, n, hidden)
    for k in range(np.uint64(n)):
        x, y = value[0, k] + c[0, k], value[1, k] + c[1, k]
        length = np.float32(math.sqrt(x * x + y * y))
        inside = length < CAP
        z[0, k], z[1, k] = x if inside else CAP, y if inside else _0
        size[k] = length if inside else CAP


@njit
def place_trial(view, c):
    """The c's (float32[2, LANES]) of the coarse grid in a view.

    view (float32[5]): its center x, y; half its side times the cosine and the sine of its rotation; -1 if it is mirrored, else 1.
    """
    for row in range(TRIAL):
        for column in range(TRIAL):
            point_of(view, (column + 0.5) / TRIAL, (row + 0.5) / TRIAL, row * TRIAL + column, c)


@njit
def point_of(view, u, v, k, c):
    """The c of a point (u, v) of the canvas [0, 1]² into entry k of c (float32[2, ≥ k])."""
    a, b = np.float32(2.0 * u - 1.0), view[4] * np.float32(2.0 * v - 1.0)
    c[0, k] = view[0] + a * view[2] - b * view[3]
    c[1, k] = view[1] + a * view[3] + b * view[2]


@njit
def threshold(greatest, share):
    """The number that `share` of greatest (float32[TRIAL²]) exceeds, by bisection."""
    low, high = _0, CAP
    wanted = np.int64(share * greatest.size)
    for _ in range(30):
        middle = _HALF * (low + high)
        above = 0
        for k in range(np.uint64(greatest.size)):
            above += 1 if greatest[k] > middle else 0
        low, high = (middle, high) if above > wanted else (low, middle)
    return high


@njit
def try_view(network, units, layers, power, iterations, view, share, z, c, hidden, sizes, times):
    """Measure the threshold of a view on the coarse grid; whole escape times there into times (int64[TRIAL²]).

    An orbit that does not escape has the time `iterations`. sizes: float32[iterations + 1, LANES] workspace.
    """
    place_trial(view, c)
    greatest = sizes[iterations]
    for k in range(LANES):
        z[0, k] = z[1, k] = greatest[k] = _0
    for step in range(iterations):
        size = sizes[step]
        iterate(network, units, layers, power, z, c, LANES, hidden, size)
        for k in range(LANES):
            greatest[k] = size[k] if size[k] > greatest[k] else greatest[k]
    limit = threshold(greatest, share)
    for k in range(LANES):
        times[k] = iterations
        for step in range(iterations):
            if sizes[step, k] > limit:
                times[k] = step
                break
    return limit


@njit
def spread_levels(times, iterations, places):
    """places[t] (float32[iterations + 2]): the share of escaping points of the coarse grid that escape before time t."""
    for t in range(iterations + 2):
        places[t] = _0
    for k in range(times.size):
        if times[k] < iterations:
            places[times[k] + 1] += _1
    for t in range(1, iterations + 2):
        places[t] += places[t - 1]
    whole = places[iterations] if places[iterations] > _0 else _1
    for t in range(iterations + 2):
        places[t] /= whole


@njit
def flaw(times, iterations, counts):
    """How far escape times (int64[TRIAL²]) are from an image with structure: 0 if they are one, else more than 0.

    Structure: no time has more than 60 % of the points; at least four times have 2 % each; by the rank of their times, adjacent
    points correlate by .82 or more along both axes (else noise); times of more than an eighth of them differ (else a disc).
    counts: int64[iterations + 1] workspace.
    """
    for t in range(iterations + 1):
        counts[t] = 0
    for k in range(times.size):
        counts[times[k]] += 1
    n, fullest, several = times.size, 0, 0
    for t in range(iterations + 1):
        fullest = max(fullest, counts[t])
        several += 1 if 50 * counts[t] >= n else 0
    # The mean rank is 1/2 exactly.
    variance, below = 0.0, 0.0
    for t in range(iterations + 1):
        rank = (below + 0.5 * counts[t]) / n
        variance += counts[t] * (rank - 0.5) * (rank - 0.5)
        below += counts[t]
    variance /= n
    worst, differ = 0.0, 0
    for axis in range(2):
        stride, squares, changes = 1 if axis == 0 else TRIAL, 0.0, 0
        for row in range(TRIAL if axis == 0 else TRIAL - 1):
            for column in range(TRIAL - 1 if axis == 0 else TRIAL):
                one, two = times[row * TRIAL + column], times[row * TRIAL + column + stride]
                if one != two:
                    changes += 1
                    between = 0.5 * (counts[one] + counts[two])
                    for t in range(min(one, two) + 1, max(one, two)):
                        between += counts[t]
                    squares += (between / n) * (between / n)
        worst, differ = max(worst, squares), max(differ, changes)
    pairs = TRIAL * (TRIAL - 1)
    correlation = 1.0 - 0.5 * worst / (pairs * max(variance, 1e-9))
    total = max(0.0, fullest / n - 0.6) + 0.25 * max(0, 4 - several)
    return total + max(0.0, 0.82 - correlation) + max(0.0, 0.125 - differ / pairs)
