"""The chaos game (Barnsley, 1988): points of an attractor by applying randomly chosen maps, many chains side by side.

The steps of one chain depend on each other, which leaves a processor idle. Here LANES independent chains take each step
together, in loops that the compiler vectorizes: the map is chosen without a branch, by comparing 32 random
bits with cumulative probabilities. Probabilities are proportional to |det A_i|, so the points cover the attractor evenly.
"""

import numpy as np
from numba import njit
from numba.np.unsafe.ndarray import to_fixed_tuple
from numpy.typing import NDArray

from ..compiling import kernel
from ..counter_rng import key
from ..xorshift import seed_lanes, xorshift32

LANES = 64
#: Steps of every chain before the first point that counts, kept in the first rows of a track: chains start at fixed points,
#: which lie on the attractor, and converge at the rate of the contraction.
FIRST_ROW = 32
#: Coordinates beyond this belong to a system that diverges.
REACH = np.float32(1e4)

#: A track (float32[rows * 2 * LANES]) holds LANES x's, then LANES y's a row; the points that count begin at START.
_NONE, _ONE, WIDTH, ROW = np.uint64(0), np.uint64(1), np.uint64(LANES), np.uint64(2 * LANES)
START = np.uint64(FIRST_ROW * 2 * LANES)
_ALWAYS_BELOW = np.uint32(0xFFFFFFFF)
#: How often maps are chosen. Of numpy's type: functions would be compiled once for a literal False and once for a literal True.
BY_DETERMINANT, EVENLY = np.bool_(False), np.bool_(True)


def rows_for(points: int) -> int:
    """Number of rows of LANES points that hold a track of `points` points, the discarded first ones included."""
    return FIRST_ROW + -(-points // LANES)


def _chains_of(n):
    """A numba function that runs chains of systems of at most n maps; n is a constant to the compiler."""

    @njit
    def run(maps, limits, states, rows, track):
        """Advance the chains from row 0 of `track` and write rows 1 … `rows - 1`; each row holds LANES x's, then y's."""
        a, b, e = to_fixed_tuple(maps[0], n), to_fixed_tuple(maps[1], n), to_fixed_tuple(maps[2], n)
        c, d, f = to_fixed_tuple(maps[3], n), to_fixed_tuple(maps[4], n), to_fixed_tuple(maps[5], n)
        limit = to_fixed_tuple(limits, n)
        for row in range(_ONE, np.uint64(rows)):
            xs = (row - _ONE) * ROW
            for lane in range(WIDTH):
                bits = xorshift32(states[lane])
                states[lane] = bits
                x, y = track[xs + lane], track[xs + WIDTH + lane]
                ma, mb, me, mc, md, mf = a[0], b[0], e[0], c[0], d[0], f[0]
                for k in range(1, n):
                    chosen = bits > limit[k]
                    ma = a[k] if chosen else ma
                    mb = b[k] if chosen else mb
                    me = e[k] if chosen else me
                    mc = c[k] if chosen else mc
                    md = d[k] if chosen else md
                    mf = f[k] if chosen else mf
                track[xs + ROW + lane] = ma * x + mb * y + me
                track[xs + ROW + WIDTH + lane] = mc * x + md * y + mf

    return run


_chains_2, _chains_3, _chains_4, _chains_8 = _chains_of(2), _chains_of(3), _chains_of(4), _chains_of(8)


@njit
def choose_limits(system, n, even, limits):
    """Into limits (uint32[8]): map k of system[:n] is taken where 32 random bits exceed limits[k] and no later one.

    With `even`, every map is as likely as the others, whatever its determinant.
    """
    total = 0.0
    for i in range(n):
        total += abs(system[i, 0, 0] * system[i, 1, 1] - system[i, 0, 1] * system[i, 1, 0])
    below = 0.0
    for i in range(8):
        limits[i] = _ALWAYS_BELOW
        if i < n:
            limits[i] = np.uint32(min(below * 4294967296.0, 4294967295.0))
            det = abs(system[i, 0, 0] * system[i, 1, 1] - system[i, 0, 1] * system[i, 1, 0])
            below += det / total if total > 0.0 and not even else 1.0 / n


@njit
def round_maps(system, n, maps):
    """system[:n] (float64[≥ n, 2, 3]) into maps[:, :n] (float32[6, 8]): a row for each entry of [A | b]."""
    for i in range(n):
        for row in range(2):
            for column in range(3):
                maps[3 * row + column, i] = np.float32(system[i, row, column])


@njit
def fixed_point(system, i):
    """Fixed point (x, y), float32, of map i of a system."""
    p, q = 1.0 - system[i, 0, 0], -system[i, 0, 1]
    r, s = -system[i, 1, 0], 1.0 - system[i, 1, 1]
    det = p * s - q * r
    det = det if abs(det) > 1e-9 else 1.0  # no unique fixed point, so no contraction: any starting point will do
    x = np.float32((system[i, 0, 2] * s - q * system[i, 1, 2]) / det)
    return x, np.float32((p * system[i, 1, 2] - r * system[i, 0, 2]) / det)


@njit
def play(system, n, even, chaos_key, rows, maps, limits, states, track):
    """Run the chaos game on system[:n] (float64[≥ n, 2, 3]): rows FIRST_ROW … `rows - 1` of `track` hold LANES points each.

    `even` as in `choose_limits`. Lane l starts at the fixed point of map l % n.
    maps float32[6, 8], limits uint32[8], states uint32[LANES], track float32[rows * 2 * LANES] are workspace.
    """
    choose_limits(system, n, even, limits)
    round_maps(system, n, maps)
    for lane in range(LANES):
        track[lane], track[LANES + lane] = fixed_point(system, lane % n)
    seed_lanes(chaos_key, states)
    if n <= 2:
        _chains_2(maps, limits, states, rows, track)
    elif n == 3:
        _chains_3(maps, limits, states, rows, track)
    elif n == 4:
        _chains_4(maps, limits, states, rows, track)
    else:
        _chains_8(maps, limits, states, rows, track)


@njit
def bounding_box(track, points, low, high):
    """(xmin, ymin, xmax, ymax), float32, of the first `points` points of a track; low, high: float32[2 * LANES] workspace.

    Extremes are kept per lane and combined at the end, so that the compiler can vectorize the loop.
    """
    first = START
    for i in range(ROW):
        low[i] = high[i] = track[first + (i // WIDTH) * WIDTH]
    rest = np.uint64(points)
    while rest >= WIDTH:
        for i in range(ROW):
            value = track[first + i]
            low[i] = value if value < low[i] else low[i]
            high[i] = value if value > high[i] else high[i]
        first += ROW
        rest -= WIDTH
    for i in range(rest):
        for j in (i, i + WIDTH):
            low[j], high[j] = min(low[j], track[first + j]), max(high[j], track[first + j])
    xmin, ymin, xmax, ymax = low[0], low[LANES], high[0], high[LANES]
    for i in range(1, LANES):
        xmin, ymin = min(xmin, low[i]), min(ymin, low[LANES + i])
        xmax, ymax = max(xmax, high[i]), max(ymax, high[LANES + i])
    return xmin, ymin, xmax, ymax


@njit
def is_bounded(track, points):
    """Whether the first `points` points of a track stay below REACH in both coordinates; no NaN does."""
    strays = np.uint32(0)
    first = START
    rest = np.uint64(points)
    while rest > _NONE:
        taken = min(rest, WIDTH)
        for lane in range(taken):
            x, y = track[first + lane], track[first + WIDTH + lane]
            strays += np.uint32(0) if (abs(x) < REACH) & (abs(y) < REACH) else np.uint32(1)
        first += ROW
        rest -= taken
    return strays == 0


@kernel("points of attractors")
def _play_alone(sources: int):
    def play_alone(system, chaos_key, rows, maps, limits, states, track):
        _ = sources
        return play(system, len(system), BY_DETERMINANT, chaos_key, rows, maps, limits, states, track)

    return play_alone


def attractor_points(system: NDArray[np.float64], points: int, seed: int = 0) -> NDArray[np.float32]:
    """Points of the attractor of a system float[n, 2, 3] = [A | b], 1 ≤ n ≤ 8: float32[points, 2]."""
    system = np.ascontiguousarray(system, np.float64)
    if system.ndim != 3 or system.shape[1:] != (2, 3) or not 1 <= len(system) <= 8:
        raise ValueError(
            f"a system is an array [n, 2, 3] of 1 to 8 maps [A | b], not one of shape {list(system.shape)}"
        )
    rows = rows_for(points)
    track = np.empty(rows * 2 * LANES, np.float32)
    workspace = np.empty((6, 8), np.float32), np.empty(8, np.uint32), np.empty(LANES, np.uint32)
    _play_alone(system, np.uint64(key("attractor", seed)), rows, *workspace, track)
    return track.reshape(-1, 2, LANES)[FIRST_ROW:].transpose(0, 2, 1).reshape(-1, 2)[:points]
