"""Codes of flames: the random numbers of a class, and how an instance departs from them."""

from typing import NamedTuple

import numpy as np
from numba import njit

from ..elementary import cos_sin, drawn, folded
from .variations import POOL, VARIATIONS

MOST_MAPS = 8
#: Variations of one map, at most.
MIXED = 3
MOST_TURNS = 6
#: The row of the final transform, behind those of the maps.
FINAL = np.int64(MOST_MAPS)
_KINDS = len(VARIATIONS)
_NUMBERS, _MAPS, _FINAL_MAP = np.int64(0), np.int64(1), np.int64(100)


class Code(NamedTuple):
    """One flame. Rows are maps; the last row is the final transform."""

    #: x' = a x + b y + e, y' = c x + d y + f as a, b, e, c, d, f. float32[MOST_MAPS + 1, 6]
    affine: np.ndarray
    #: Positions in VARIATIONS, and their weights, 0 where there are fewer. int64, float32[MOST_MAPS + 1, MIXED]
    kinds: np.ndarray
    weights: np.ndarray
    #: Map i takes points first[i] … first[i + 1] - 1 of the pool. int64[MOST_MAPS + 1]
    first: np.ndarray
    #: Color coordinate of each map, in [0, 1]. float32[MOST_MAPS]
    color: np.ndarray
    #: Number of maps; order of the rotational symmetry, 1 for none; 1 with a final transform, else 0. int64[3]
    numbers: np.ndarray


@njit
def empty_code():
    """Memory for a `Code`."""
    return Code(
        np.zeros((MOST_MAPS + 1, 6), np.float32),
        np.zeros((MOST_MAPS + 1, MIXED), np.int64),
        np.zeros((MOST_MAPS + 1, MIXED), np.float32),
        np.zeros(MOST_MAPS + 1, np.int64),
        np.zeros(MOST_MAPS, np.float32),
        np.zeros(3, np.int64),
    )


@njit
def _draw_map(key, reach, row, code):
    """One map: 1 to 3 variations after rotations around singular values s = U(.35, 1.1) and ± U(.3, 1) s, and an offset."""
    one, two = 0.35 + 0.75 * drawn(key, 0), 0.3 + 0.7 * drawn(key, 1)
    two *= one if drawn(key, 2) < 0.7 else -one
    c, s = cos_sin(drawn(key, 3))
    p, q = cos_sin(drawn(key, 4))
    affine = code.affine[row]
    affine[0], affine[1] = np.float32(c * one * p - s * two * q), np.float32(-c * one * q - s * two * p)
    affine[3], affine[4] = np.float32(s * one * p + c * two * q), np.float32(-s * one * q + c * two * p)
    affine[2] = np.float32(reach * (2.0 * drawn(key, 5) - 1.0))
    affine[5] = np.float32(reach * (2.0 * drawn(key, 6) - 1.0))
    u = drawn(key, 7)
    mixed, total = 1 if u < 0.55 else (2 if u < 0.85 else 3), 0.0
    for j in range(MIXED):
        weight = 0.2 + drawn(key, 8 + j) if j < mixed else 0.0
        code.kinds[row, j] = int(_KINDS * drawn(key, 8 + MIXED + j))
        code.weights[row, j] = np.float32(weight)
        total += weight
    for j in range(MIXED):
        code.weights[row, j] = np.float32(code.weights[row, j] / total)


@njit
def draw_code(class_key, fewest, most, symmetric, final, code):
    """The code of a class: `fewest` to `most` maps; a share `symmetric` of classes has a symmetry, `final` a final transform."""
    key = folded(class_key, _NUMBERS)
    n = fewest + int(drawn(key, 0) * (most - fewest + 1))
    code.numbers[0] = n
    code.numbers[1] = 2 + int((MOST_TURNS - 1) * drawn(key, 2)) if drawn(key, 1) < symmetric else 1
    code.numbers[2] = 1 if drawn(key, 3) < final else 0
    total, below = 0.0, 0.0
    for i in range(n):
        _draw_map(folded(class_key, _MAPS + i), 1.0, i, code)
        # Colors are spread evenly, a third of a step less or more.
        code.color[i] = np.float32(min(max((i + 0.67 * (drawn(key, 5 + 2 * i) - 0.5)) / (n - 1), 0.0), 1.0))
        total += 0.3 + drawn(key, 4 + 2 * i)
    for i in range(n):
        code.first[i] = int(POOL * below / total)
        below += 0.3 + drawn(key, 4 + 2 * i)
    code.first[n] = POOL
    _draw_map(folded(class_key, _FINAL_MAP), 0.3, FINAL, code)


@njit
def vary(instance_key, strength, code, varied):
    """An instance's code from its class's: at strength 1, entries of affine maps change by up to .06, weights by a tenth."""
    draw = 0
    for row in range(MOST_MAPS + 1):
        for k in range(6):
            change = 0.06 * strength * (2.0 * drawn(instance_key, draw) - 1.0)
            varied.affine[row, k] = np.float32(code.affine[row, k] + change)
            draw += 1
        for j in range(MIXED):
            factor = 1.0 + 0.1 * strength * (2.0 * drawn(instance_key, draw) - 1.0)
            varied.weights[row, j] = np.float32(factor * code.weights[row, j])
            varied.kinds[row, j] = code.kinds[row, j]
            draw += 1
        varied.first[row] = code.first[row]
    for i in range(MOST_MAPS):
        varied.color[i] = code.color[i]
    for i in range(3):
        varied.numbers[i] = code.numbers[i]
