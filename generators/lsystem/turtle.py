"""A turtle that draws the sentences of an L-system (Prusinkiewicz & Lindenmayer, 1990), with widths as in FreeCOS.

F draws a branch; + turns left and - turns right, and both reduce the width of what follows; [ saves the turtle's state and ]
restores it. Published branches are straight and of one width; here they can also be arcs that leave the one before without
a kink, bend at random, are jagged, and taper. A branch is then a sequence of straight pieces.
"""

import numpy as np
from numba import njit

from ..counter_rng import fold64, uniform64
from ..elementary import cos_sin
from .grammar import CLOSE, FORWARD, LEFT, OPEN

#: A piece: from (x0, y0) to (x1, y1), in pixels, y downward, and the width at both ends.
X0, Y0, X1, Y1, WIDTH0, WIDTH1 = range(6)
#: A turtle: where it is, its heading in turns counterclockwise and the width of its pen, and the direction and width of the
#: branch at this place, in which a smooth and tapering branch begins.
X, Y, HEADING, PEN, DIRECTION, GIRTH = range(6)

_TURNS, _BENDS, _JAGS = np.uint64(100), np.uint64(101), np.uint64(102)
_DEGREE = 1.0 / 360.0
_ONE = np.uint64(1)


@njit
def walk(tree_key, symbols, turtle, hand, turn, bend, length, ratios, form, stack, segments, count):
    """Draw a sentence (uint8[M]) into rows `count` … of segments (float64[≥ bound, 6]); returns the count then.

    - turtle, float64[6]: where to start; changed. stack, float64[≥ MAX_BRACKETS, 6]: workspace.
    - turn, bend: spans in degrees. The j-th turn is by U(turn), draw j of fold(tree_key, 100); while the j-th branch is
      drawn, the heading changes by U(bend) to the left or right, draws 2 j and 2 j + 1 of fold(tree_key, 101).
      `hand` = -1 exchanges left and right.
    - length, ratios: a branch is `length` pixels times ratios[0] long inside brackets, times ratios[1] outside. A turn to the
      left multiplies the pen's width by ratios[0], one to the right by ratios[1].
    - form: thinnest pen; whether a branch tapers from the width at its start to the pen's; whether it starts in the direction
      of the one before, or in the heading; pieces of a branch; by how many degrees at most each leaves the arc, draw j of
      fold(tree_key, 102) for the j-th piece.
    """
    thinnest, taper, smooth, pieces, jag = form
    turns_key, bends_key, jags_key = fold64(tree_key, _TURNS), fold64(tree_key, _BENDS), fold64(tree_key, _JAGS)
    turns, bends, jags, depth = np.uint64(0), np.uint64(0), np.uint64(0), 0
    for symbol in symbols:
        if symbol == FORWARD:
            start = turtle[DIRECTION] if smooth else turtle[HEADING]
            girth = turtle[GIRTH] if taper else turtle[PEN]
            bow = (bend[0] + (bend[1] - bend[0]) * uniform64(bends_key, bends)) * _DEGREE
            turtle[HEADING] += hand * bow if uniform64(bends_key, bends + _ONE) < 0.5 else -hand * bow
            bends += _ONE + _ONE
            step = length * ratios[0 if depth > 0 else 1] / pieces
            for piece in range(pieces):
                heading = start + (turtle[HEADING] - start) * ((piece + 0.5) / pieces)
                heading += hand * jag * _DEGREE * (2.0 * uniform64(jags_key, jags) - 1.0)
                jags += _ONE
                c, s = cos_sin(heading)
                row = segments[count]
                row[X0], row[Y0] = turtle[X], turtle[Y]
                turtle[X] += step * c
                turtle[Y] -= step * s
                row[X1], row[Y1] = turtle[X], turtle[Y]
                row[WIDTH0] = girth + (turtle[PEN] - girth) * (piece / pieces)
                row[WIDTH1] = girth + (turtle[PEN] - girth) * ((piece + 1) / pieces)
                count += 1
            turtle[DIRECTION], turtle[GIRTH] = turtle[HEADING], turtle[PEN]
        elif symbol == OPEN:
            for k in range(6):
                stack[depth, k] = turtle[k]
            depth += 1
        elif symbol == CLOSE:
            depth -= 1
            for k in range(6):
                turtle[k] = stack[depth, k]
        else:
            angle = (turn[0] + (turn[1] - turn[0]) * uniform64(turns_key, turns)) * _DEGREE
            turns += _ONE
            left = symbol == LEFT
            turtle[HEADING] += hand * angle if left else -hand * angle
            turtle[PEN] = max(turtle[PEN] * ratios[0 if left else 1], thinnest)
    return count
