"""Classes of textures and their instances: the program of a class, and what an instance changes in it."""

import numpy as np
from numba import njit

from ..counter_rng import draw64
from ..elementary import cos_sin, drawn, exp, folded
from ..palette import COLORS, KIND, NO_SECOND, RELIEF, SECOND, SMOOTH, draw_style
from . import ops as op
from .grammar import draw_expression
from .ops import AMOUNT, CHANGE, COUNT, PARAMETERS

#: Purposes of the keys of an attempt at a class.
_PROGRAM, _STYLE, CLASS_LATTICES = range(3)
#: Rejected programs of a class before it uses the fallback program.
CLASS_ATTEMPTS = 24
_S32 = np.uint64(32)


@njit
def draw_class(attempt_key, attempt, least, most, cursor, tasks, codes, parameters, lengths, style):
    """Draw attempt number `attempt` at a class: its program of `least` to `most` instructions, and its style.

    Returns the number of expressions: 2 if a second one selects the palette. The last attempt is the fallback program.
    cursor, tasks: workspace of `draw_expression`.
    """
    draw_style(folded(attempt_key, _STYLE), style)
    if attempt == CLASS_ATTEMPTS:
        plain_class(codes, parameters, lengths, style)
        return 1
    program_key = folded(attempt_key, _PROGRAM)
    cursor[0] = np.uint64(0)
    budget = least + int(drawn(program_key, 0) * (most - least + 1))
    lengths[0] = draw_expression(program_key, cursor, budget, tasks, codes, parameters, 0)
    if style[SECOND] == NO_SECOND:
        return 1
    lengths[1] = draw_expression(program_key, cursor, 1, tasks, codes, parameters, lengths[0])
    return 2


@njit
def plain_class(codes, parameters, lengths, style):
    """The fallback program, visible in every view, with a style that hides nothing of it: stripes bent by noise."""
    codes[0], codes[1], codes[2], codes[3], codes[4] = op.NOISE, op.NOISE, op.WARP, op.STRIPES, op.LEAVE
    for at in range(5):
        for k in range(PARAMETERS):
            parameters[at, k] = np.float32(0.0)
    parameters[0, 0] = parameters[1, 0] = np.float32(0.8)
    parameters[2, 0] = np.float32(0.5)
    parameters[3, 0], parameters[3, 1] = np.float32(1.2), np.float32(0.6)  # a sine, never clipped
    lengths[0] = 5
    style[KIND], style[COLORS], style[SECOND], style[RELIEF] = SMOOTH, 2, NO_SECOND, 0.0


@njit
def draw_lattices(lattice_key, length, salts):
    """A salt for every instruction: its own random lattice."""
    for at in range(length):
        salts[at] = np.uint32(draw64(lattice_key, np.uint64(at)) >> _S32)


@njit
def move_parameters(instance_key, variation, codes, length, parameters, moved):
    """The parameters of an instance: those of its class, changed by up to `variation` times what each may change."""
    for at in range(length):
        code = codes[at]
        for k in range(PARAMETERS):
            value = np.float64(parameters[at, k])
            if k < COUNT[code] and CHANGE[code, k] > 0:
                u = drawn(instance_key, at * PARAMETERS + k)
                if CHANGE[code, k] == 1:
                    value *= exp((2.0 * u - 1.0) * variation * AMOUNT[code, k])
                elif CHANGE[code, k] == 2:
                    value += (2.0 * u - 1.0) * variation * AMOUNT[code, k]
                else:
                    value = u
            moved[at, k] = np.float32(value)


@njit
def draw_view(view_key, variation, extent, view):
    """A flip, a turn, a zoom and a shift: the affine map (float32[6]) from [-1, 1]² to about ±`extent` of the plane.

    Times `variation`: the turn goes up to 1/10 of a circle, the zoom to a factor 4/3, the shift to a third of an image.
    """
    c, s = cos_sin(0.1 * variation * (2.0 * drawn(view_key, 0) - 1.0))
    zoom = extent * exp(0.28 * variation * (2.0 * drawn(view_key, 1) - 1.0))
    flip = zoom if drawn(view_key, 2) < 0.5 else -zoom
    shift = 0.7 * extent * variation
    view[0], view[1] = np.float32(flip * c), np.float32(-zoom * s)
    view[3], view[4] = np.float32(flip * s), np.float32(zoom * c)
    view[2] = np.float32(shift * (2.0 * drawn(view_key, 3) - 1.0))
    view[5] = np.float32(shift * (2.0 * drawn(view_key, 4) - 1.0))
