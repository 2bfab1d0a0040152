"""The interpreter of texture programs: every instruction is one loop over a run of pixels.

A program is codes (int32[L], of `ops`), parameters (float32[L, PARAMETERS]) and salts (uint32[L], the random lattice
that an instruction reads), and holds one or two expressions.
"""

import numpy as np
from numba import njit

from . import lattice_noise as lattice
from . import ops as op
from . import points as bend
from . import values as value
from .ops import ARITY

#: Approximate pixels per run, such that the workspace of a program fits the L1 and L2 caches.
RUN = 512
#: Points on the stack, at most; values on the stack, at most; rows of scratch.
DEPTH, HEIGHT, SCRATCH = op.MOST_INSTRUCTIONS + 2, 2 * op.MOST_INSTRUCTIONS + 6, 4
_0, _1, _2, _HALF = (np.float32(v) for v in (0.0, 1.0, 2.0, 0.5))


def run_width(grid: int) -> int:
    """Pixels of a run, of whole rows of a grid."""
    return grid * max(1, RUN // grid)


@njit
def look(view, grid, first, points):
    """Fill points (float32[3, T]) with the plane coordinates of whole rows of a grid² over [-1, 1]², from row `first` on."""
    xs, ys, tones = points[0], points[1], points[2]
    step = _2 / np.float32(grid)
    for r in range(xs.size // grid):
        v = (np.float32(first + r) + _HALF) * step - _1
        x, y, start = view[1] * v + view[2], view[4] * v + view[5], np.uint64(r * grid)
        for k in range(np.uint64(grid)):
            u = (np.float32(np.int32(k)) + _HALF) * step - _1
            xs[start + k] = view[0] * u + x
            ys[start + k] = view[3] * u + y
            tones[start + k] = _HALF
    for k in range(np.uint64(xs.size // grid * grid), np.uint64(xs.size)):  # too few for a row
        xs[k] = ys[k] = tones[k] = _0


@njit
def evaluate(codes, parameters, salts, lengths, layers, view, points, values, tones, scratch, planes):
    """Fill planes (float32[≥ layers, G, G]) with the values of each expression, in [0, 1].

    lengths: of the program up to the end of each expression. view: float32[6], the affine map from [-1, 1]² to the plane.
    points: float32[DEPTH, 3, T] (x, y, tone), values: float32[HEIGHT, T], tones: int64[DEPTH] and scratch:
    float32[SCRATCH, T] are workspace, T = run_width(G).
    """
    grid, width = planes.shape[1], points.shape[2]
    rows = width // grid
    for first in range(0, grid, rows):
        look(view, grid, first, points[0])
        at = 0
        for layer in range(layers):
            depth, height = 0, 0
            tones[0] = 0
            while at < lengths[layer]:
                code, p, salt = codes[at], parameters[at], salts[at]
                x, y, tone = points[depth, 0], points[depth, 1], points[tones[depth], 2]
                at += 1
                if code < op.LEAVE:
                    height -= ARITY[code]
                    depth += 1
                    tones[depth] = tones[depth - 1]
                    u, v = points[depth, 0], points[depth, 1]
                    if code == op.TURN:
                        bend.turn(x, y, p[0], p[1], p[2], p[3], p[4], u, v)
                    elif code == op.TILE:
                        tones[depth] = depth
                        bend.tile(x, y, int(p[0]), p[1], int(p[2]), salt, u, v, points[depth, 2])
                    elif code == op.SCATTER:
                        tones[depth] = depth
                        bend.scatter(x, y, p[0], p[1], int(p[2]), salt, scratch, u, v, points[depth, 2])
                    elif code == op.KALEIDOSCOPE:
                        bend.kaleidoscope(x, y, p[0], p[1], u, v)
                    elif code == op.POLAR:
                        bend.polar(x, y, p[0], p[1], u, v)
                    elif code == op.SWIRL:
                        bend.swirl(x, y, p[0], p[1], u, v)
                    elif code == op.LENS:
                        bend.lens(x, y, p[0], u, v)
                    elif code == op.RIPPLE:
                        bend.ripple(x, y, p[0], p[1], p[2], u, v)
                    else:
                        bend.warp(x, y, p[0], values[height], values[height + 1], u, v)
                elif code == op.LEAVE:
                    depth -= 1
                elif code <= op.CELLS:
                    out = values[height]
                    height += 1
                    if code == op.STRIPES:
                        value.stripes(x, p[0], p[1], p[2], out)
                    elif code == op.RINGS:
                        value.rings(x, y, p[0], p[1], p[2], out)
                    elif code == op.SPOKES:
                        value.spokes(x, y, p[0], p[1], p[2], p[3], out)
                    elif code == op.SHAPE:
                        value.shape(x, y, int(p[0]), p[1], p[2], p[3], out)
                    elif code == op.TONE:
                        value.copy(tone, out)
                    elif code == op.BLOCKS:
                        lattice.blocks(x, y, p[0], int(p[1]), salt, out)
                    elif code == op.NOISE:
                        lattice.fractal_sum(x, y, p[0], 1, _1, 0, salt, out)
                    elif code == op.FRACTAL:
                        lattice.fractal_sum(x, y, p[0], int(p[1]), p[2], int(p[3]), salt, out)
                    else:
                        lattice.cells(x, y, p[0], p[1], int(p[2]), salt, scratch, out)
                else:
                    height -= ARITY[code] - 1
                    a, b, c = values[height - 1], values[height], values[height + 1]
                    if code == op.WAVE:
                        value.wave(a, p[0], p[1])
                    elif code == op.FOLD:
                        value.fold(a, p[0])
                    elif code == op.SAW:
                        value.saw(a, p[0])
                    elif code == op.STEP:
                        value.step(a, p[0], p[1])
                    elif code == op.BIAS:
                        value.bias(a, p[0])
                    elif code == op.TERRACES:
                        value.terraces(a, p[0])
                    elif code == op.BLEND:
                        value.blend(a, b, p[0])
                    elif code == op.MULTIPLY:
                        value.multiply(a, b)
                    elif code == op.SCREEN:
                        value.screen(a, b)
                    elif code == op.DARKER:
                        value.darker(a, b)
                    elif code == op.LIGHTER:
                        value.lighter(a, b)
                    elif code == op.DIFFERENCE:
                        value.difference(a, b)
                    else:
                        value.mix(a, b, c)
            result, start = values[0], np.uint64(0)
            for row in range(first, min(first + rows, grid)):
                target = planes[layer, row]
                for k in range(np.uint64(grid)):
                    target[k] = result[start + k]
                start += np.uint64(grid)
