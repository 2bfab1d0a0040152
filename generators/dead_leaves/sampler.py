"""Leaves of the dead-leaves model: a radius by a power law and a convex outline on the circle of that radius.

Lee, Mumford & Huang (2001): leaves fall uniformly over the plane, with p(r) ∝ r^-σ between two radii. Of those, the ones whose
circle's bounding square meets the unit canvas follow p(r) (1 + 2 r)², with centers uniform over the canvas grown by r: sampling
this law directly wastes no leaf far away, and no border is thinner covered than the middle.
"""

import math
from typing import Literal, get_args

import numpy as np
from numba import njit

from ..counter_rng import uniform64
from ..elementary import cos_sin, exp, log, power

Shapes = Literal["circle", "square", "oriented", "rectangle", "triangle", "quad", "mixed"]
SHAPES: tuple[str, ...] = get_args(Shapes)
_SQUARE, _ORIENTED, _RECTANGLE, _TRIANGLE, _QUAD, _MIXED = (SHAPES.index(name) for name in SHAPES[1:])
CIRCLE = SHAPES.index("circle")

_TERM, _RADIUS, _X, _Y, _SHAPE, _ANGLE = (np.uint64(draw) for draw in range(6))
_LOGARITHMIC = 1e-6


@njit
def _primitive(r, rise):
    """r^rise; log r in place of r^0, so that differences are those of a primitive of r^(rise - 1) up to a factor."""
    return log(r) if abs(rise) < _LOGARITHMIC else power(r, rise)


@njit
def _inverse(value, rise):
    """The r whose primitive is `value`; without elementary functions for the terms of σ = 2 and 3."""
    if abs(rise) < _LOGARITHMIC:
        return exp(value)
    if rise == -2.0:
        return math.sqrt(1.0 / value)
    return 1.0 / value if rise == -1.0 else power(value, 1.0 / rise)


@njit
def hit_law(low, high, exponent, law):
    """Tabulate p(r) (1 + 2 r)² = p(r) + 4 r p(r) + 4 r² p(r) for `sample_radius`: law (float64[3, 4]), a row for each term.

    Columns: the shares up to this term, the term's primitive at `low` and its growth to `high`, the power it is of.
    """
    total = 0.0
    for term in range(3):
        rise = 1.0 - exponent + term
        first, last = _primitive(low, rise), _primitive(high, rise)
        growth = last - first if abs(rise) < _LOGARITHMIC else (last - first) / rise
        total += growth if term == 0 else 4.0 * growth
        law[term, 0], law[term, 1], law[term, 2], law[term, 3] = total, first, last - first, rise
    for term in range(3):
        law[term, 0] = law[term, 0] / total if total > 0.0 else 1.0


@njit
def sample_radius(leaf_key, low, high, law):
    """A radius between low and high by `law`: inversion of the term that the first draw picks."""
    pick = uniform64(leaf_key, _TERM)
    term = 0 if pick < law[0, 0] else (1 if pick < law[1, 0] else 2)
    radius = _inverse(law[term, 1] + uniform64(leaf_key, _RADIUS) * law[term, 2], law[term, 3])
    return min(max(radius, low), high)


@njit
def sample_center(leaf_key, radius):
    """(x, y), each uniform over [-radius, 1 + radius)."""
    width = 1.0 + 2.0 * radius
    return width * uniform64(leaf_key, _X) - radius, width * uniform64(leaf_key, _Y) - radius


@njit
def sample_outline(leaf_key, shape, x, y, radius, outline):
    """Corners of a leaf by rising angle: outline (float64[4, 2]) = x, y; returns their number, 0 for a circle.

    `shape` is a position in SHAPES. After Baradad et al. (2021), all corners lie on the circle: square, its sides along the
    axes; oriented, a square turned by any angle; rectangle, sides along the axes, its diagonal at U(0, 90°); triangle and quad,
    corners at 3 and 4 independent angles; mixed, any of these with the circle.
    """
    if shape == _MIXED:
        shape = int(uniform64(leaf_key, _SHAPE) * _MIXED)
    if shape == CIRCLE:
        return 0
    corners = 3 if shape == _TRIANGLE else 4
    turn = uniform64(leaf_key, _ANGLE)
    for k in range(corners):
        if shape == _SQUARE:
            outline[k, 0] = 0.125 + 0.25 * k
        elif shape == _ORIENTED:
            outline[k, 0] = 0.25 * (turn + k)
        elif shape == _RECTANGLE:
            outline[k, 0] = 0.5 * ((k + 1) // 2) + (0.25 if k % 2 == 0 else -0.25) * turn
        else:
            angle, at = uniform64(leaf_key, _ANGLE + np.uint64(k)), k
            while at > 0 and outline[at - 1, 0] > angle:
                outline[at, 0] = outline[at - 1, 0]
                at -= 1
            outline[at, 0] = angle
    for k in range(corners):
        c, s = cos_sin(outline[k, 0])
        outline[k, 0], outline[k, 1] = x + radius * c, y + radius * s
    return corners
