"""The chaos game of flames: a pool of points that moves in steps, each map taking its share of the pool.

The published program moves one point by one random map after the other. Here POOL points take a step together: map i is applied
to a share of the pool that is its probability, in loops that the compiler vectorizes, and the pool is shuffled between steps. The
maps of a single point are random as before, and every step has each map in its right share.
"""

import numpy as np
from numba import njit

from ..counter_rng import draw64, uniform32
from ..elementary import cos_sin
from .code import FINAL, MIXED
from .variations import POOL, add_variation, measure

#: Steps before points count: the pool starts in [-1, 1]², which has nothing to do with the attractor.
BURN_IN = 20
#: Points beyond this return to where they started, as does what is not a number.
REACH = np.float32(1e4)
_0, _1, _2, _HALF = np.float32(0.0), np.float32(1.0), np.float32(2.0), np.float32(0.5)
_MASK, _S5, _S32 = np.uint64(POOL - 1), np.uint64(5), np.uint64(32)
#: Rows of the workspace: mapped points; radius and angle, and six rows for `add_variation`.
ROWS = 10


@njit
def start_pool(key, pool, start):
    """Points in [-1, 1]² with colors in [0, 1]: pool, start (float32[3, POOL])."""
    for k in range(POOL):
        for row in range(2):
            start[row, k] = _2 * uniform32(key, np.uint64(3 * k + row)) - _1
        start[2, k] = uniform32(key, np.uint64(3 * k + 2))
        for row in range(3):
            pool[row, k] = start[row, k]


@njit
def apply_map(code, row, x, y, n, space, u, v):
    """Map `row` of a code at n points into u, v; all float32[≥ n], space float32[ROWS, ≥ n]."""
    a, b, e, c, d, f = code.affine[row]
    mapped, other = space[ROWS - 2], space[ROWS - 1]
    for k in range(np.uint64(n)):
        mapped[k], other[k] = a * x[k] + b * y[k] + e, c * x[k] + d * y[k] + f
        u[k] = v[k] = _0
    measure(mapped, other, n, space[0], space[1])
    for j in range(MIXED):
        if code.weights[row, j] > _0:
            add_variation(code.kinds[row, j], code.weights[row, j], mapped, other, n, space, u, v)


@njit
def _turn(c, s, n, u, v):
    for k in range(np.uint64(n)):
        x = c * u[k] - s * v[k]
        v[k] = s * u[k] + c * v[k]
        u[k] = x


@njit
def _settle(color, n, start, u, v, tint):
    """Colors move halfway to that of the map; points that are far away, or no numbers, return to their start."""
    for k in range(np.uint64(n)):
        tint[k] = _HALF * (tint[k] + color)
        good = (u[k] < REACH) & (u[k] > -REACH) & (v[k] < REACH) & (v[k] > -REACH)
        u[k], v[k] = u[k] if good else start[0, k], v[k] if good else start[1, k]


@njit
def step_pool(code, key, step, pool, start, moved, space):
    """Move the pool by one step: into moved (float32[3, POOL]), map by map, and from there shuffled into pool.

    With a symmetry of order m, each map is followed by one of the m rotations, in equal shares.
    """
    n, order = code.numbers[0], code.numbers[1]
    for i in range(n):
        first, width = code.first[i], code.first[i + 1] - code.first[i]
        x, y = pool[0, first:], pool[1, first:]
        u, v, tint = moved[0, first:], moved[1, first:], moved[2, first:]
        apply_map(code, i, x, y, width, space, u, v)
        for k in range(width):
            tint[k] = pool[2, first + k]
        for turn in range(1, order):
            low, high = width * turn // order, width * (turn + 1) // order
            c, s = cos_sin(turn / order)
            _turn(np.float32(c), np.float32(s), high - low, u[low:], v[low:])
        _settle(code.color[i], width, start[:, first:], u, v, tint)
    # An odd multiplier and an offset permute the pool, and turning the ten bits mixes high ones with low ones.
    bits = draw64(key, np.uint64(step))
    factor, offset = (bits & _MASK) | np.uint64(1), (bits >> _S32) & _MASK
    for k in range(np.uint64(POOL)):
        at = (k * factor + offset) & _MASK
        at = ((at << _S5) | (at >> _S5)) & _MASK
        pool[0, at], pool[1, at], pool[2, at] = moved[0, k], moved[1, k], moved[2, k]


@njit
def shown_points(code, moved, space, u, v):
    """Where points are seen, float32[POOL] each: the final transform of them, if there is one."""
    if code.numbers[2] == 1:
        apply_map(code, FINAL, moved[0], moved[1], POOL, space, u, v)
    else:
        for k in range(POOL):
            u[k], v[k] = moved[0, k], moved[1, k]
