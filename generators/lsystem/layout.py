"""Placement of the trees of an L-system image, such that enough of them is visible."""

import math

import numpy as np
from numba import njit

from ..counter_rng import fold64, uniform64
from ..elementary import cos_sin
from .grammar import expand
from .turtle import DIRECTION, GIRTH, HEADING, PEN, X0, X1, Y0, Y1, X, Y, walk

#: Rows of the spans (float64[12, 2]) that an image's draws are uniform on; lengths and places in sides of the image.
TREES, ITERATIONS, WIDTH, LENGTH, TURN, BEND, RATIO, START_X, START_Y, START_ANGLE, ROTATION, CONTRAST = range(12)
#: Thinnest line in pixels. Wider than √2: so every pixel that a line's middle passes has its center in the stroke.
THINNEST_LINE = 1.5
ATTEMPTS = 8
_MARGIN = 0.95
_ENOUGH_SHARE, _ENOUGH_SIDES = 0.5, 1.5
_DEGREE = 1.0 / 360.0
_IMAGE, _TREE = np.uint64(0), np.uint64(1)


@njit
def between(span, u):
    """A number of a span (least, most), u from [0, 1) of the way."""
    return span[0] + (span[1] - span[0]) * u


@njit
def integer_between(span, u):
    """A whole number of a span (least, most), both included."""
    return int(span[0]) + int(u * (span[1] - span[0] + 1.0))


@njit
def length_inside(segment, size):
    """Length in pixels of the part of a segment's middle line in the open square (0, size)²: Liang & Barsky, 1984."""
    dx, dy = segment[X1] - segment[X0], segment[Y1] - segment[Y0]
    enter, leave = 0.0, 1.0
    for axis in range(2):
        start, step = segment[axis], dx if axis == 0 else dy
        if abs(step) < 1e-12:
            if not 0.0 < start < size:
                return 0.0
        else:
            near, far = (0.0 - start) / step, (size - start) / step
            enter, leave = max(enter, min(near, far)), min(leave, max(near, far))
    return (leave - enter) * math.sqrt(dx * dx + dy * dy) if leave > enter else 0.0


@njit
def _enough_is_visible(segments, count, size):
    """Whether half of all lines, or one and a half sides of the image, lie inside it."""
    total = seen = 0.0
    for i in range(count):
        segment = segments[i]
        dx, dy = segment[X1] - segment[X0], segment[Y1] - segment[Y0]
        total += math.sqrt(dx * dx + dy * dy)
        seen += length_inside(segment, size)
    return seen >= min(_ENOUGH_SHARE * total, _ENOUGH_SIDES * size)


@njit
def _fit(segments, count, size):
    """Move the segments so that their bounding box is in the middle of the image, made smaller if it is too large."""
    left = right = segments[0, X0]
    top = bottom = segments[0, Y0]
    for i in range(count):
        for end in (0, 2):
            left, right = min(left, segments[i, end]), max(right, segments[i, end])
            top, bottom = min(top, segments[i, end + 1]), max(bottom, segments[i, end + 1])
    extent = max(right - left, bottom - top)
    scale = min(1.0, _MARGIN * size / extent)
    for i in range(count):
        for end in (0, 2):
            segments[i, end] = 0.5 * size + scale * (segments[i, end] - 0.5 * (left + right))
            segments[i, end + 1] = 0.5 * size + scale * (segments[i, end + 1] - 0.5 * (top + bottom))


@njit
def _plant(tree_key, spans, size, thinnest, turned, turtle):
    """Place a turtle at the start of a tree; returns whether the tree is mirrored.

    Half of the trees start as `start_x` says from the left side, the others are mirrored. Then the whole image is turned.
    """
    x = (between(spans[START_X], uniform64(tree_key, np.uint64(0))) - 0.5) * size
    y = (between(spans[START_Y], uniform64(tree_key, np.uint64(1))) - 0.5) * size
    heading = between(spans[START_ANGLE], uniform64(tree_key, np.uint64(2))) * _DEGREE
    mirrored = uniform64(tree_key, np.uint64(3)) < 0.5
    if mirrored:
        x, heading = -x, 0.5 - heading
    c, s = cos_sin(turned)
    turtle[X] = 0.5 * size + (c * x + s * y)
    turtle[Y] = 0.5 * size + (c * y - s * x)
    turtle[HEADING] = turtle[DIRECTION] = heading + turned
    turtle[PEN] = turtle[GIRTH] = max(between(spans[WIDTH], uniform64(tree_key, np.uint64(4))) * size, thinnest)
    return mirrored


@njit
def _grow(attempt_key, spans, odds, size, form, workspace, segments):
    """One try at an image's segments; returns how many. odds: of the bracketed axiom, the second set, rules 1, 1 or 2."""
    levels, symbols, turtle, ratios, stack = workspace
    image_key = fold64(attempt_key, _IMAGE)
    trees = integer_between(spans[TREES], uniform64(image_key, np.uint64(0)))
    turned = between(spans[ROTATION], uniform64(image_key, np.uint64(1))) * _DEGREE
    count = 0
    for tree in range(trees):
        tree_key = fold64(fold64(attempt_key, _TREE), np.uint64(tree))
        mirrored = _plant(tree_key, spans, size, form[0], turned, turtle)
        length = between(spans[LENGTH], uniform64(tree_key, np.uint64(5))) * size
        ratios[0] = between(spans[RATIO], uniform64(tree_key, np.uint64(6)))
        ratios[1] = between(spans[RATIO], uniform64(tree_key, np.uint64(7)))
        iterations = integer_between(spans[ITERATIONS], uniform64(tree_key, np.uint64(8)))
        axiom = 1 if uniform64(tree_key, np.uint64(9)) < odds[0] else 0
        rule_set = 1 if uniform64(tree_key, np.uint64(10)) < odds[1] else 0
        written = expand(tree_key, axiom, rule_set, odds[2], odds[3], iterations, levels, symbols)
        hand, sentence = -1.0 if mirrored else 1.0, symbols[:written]
        turn, bend = spans[TURN], spans[BEND]
        count = walk(tree_key, sentence, turtle, hand, turn, bend, length, ratios, form, stack, segments, count)
    return count


@njit
def lay_out(layout_key, spans, odds, size, form, workspace, segments):
    """Fill segments (float64[≥ bound, 6]) with those of an image; returns how many.

    An image with too little of its trees visible is drawn again with another key; the last attempt is centered.
    form: as in `walk`. workspace: int64[3, MAX_ITERATIONS + 1], uint8[≥ bound], float64[6], float64[2] and
    float64[MAX_BRACKETS, 6].
    """
    count = 0
    for attempt in range(ATTEMPTS):
        attempt_key = fold64(layout_key, np.uint64(attempt))
        count = _grow(attempt_key, spans, odds, size, form, workspace, segments)
        if _enough_is_visible(segments, count, size):
            return count
    _fit(segments, count, size)
    return count
