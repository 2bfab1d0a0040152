"""Instances of a class: small changes of a system's parameters that keep every map a contraction.

After Anderson & Farrell (2022), who draw again until the changed system is still non-expansive; here the change is made
on the factors of A = R(θ) diag(s1, s2) R(φ) D, where the bound on the singular values can simply be kept.
"""

import math
from typing import Literal, get_args

import numpy as np
from numba import njit

from ..counter_rng import uniform64
from .ifs_sampler import B1, B2, MAX_SINGULAR, PHI, S1, S2, THETA

Jitter = Literal["svd", "sval", "basic", "fractaldb", "none"]
JITTERS: tuple[str, ...] = get_args(Jitter)
_SVD, _SVAL, _BASIC = (JITTERS.index(name) for name in ("svd", "sval", "basic"))
_TURNS_PER_RADIAN = 1.0 / 6.283185307179586


@njit
def jitter_factors(kind, instance_key, n, factors):
    """Change one of the n maps in factors (float64[≥ n, 8]) in place; `kind` is a position in JITTERS.

    svd: turn the left or the right rotation by U(-.5, .5) radians, or shift b by U(-.5, .5)², kept in [-1, 1]².
    sval: scale the two singular values by U(.8, 1.1) each. basic: scale the whole map, b too, by U(.8, 1.1).
    """
    i = int(uniform64(instance_key, np.uint64(0)) * n)
    u1, u2 = uniform64(instance_key, np.uint64(1)), uniform64(instance_key, np.uint64(2))
    if kind == _SVD:
        part = int(uniform64(instance_key, np.uint64(3)) * 3.0)
        if part == 0:
            factors[i, THETA] += (u1 - 0.5) * _TURNS_PER_RADIAN
        elif part == 1:
            factors[i, PHI] += (u1 - 0.5) * _TURNS_PER_RADIAN
        else:
            factors[i, B1] = min(max(factors[i, B1] + u1 - 0.5, -1.0), 1.0)
            factors[i, B2] = min(max(factors[i, B2] + u2 - 0.5, -1.0), 1.0)
    elif kind == _SVAL:
        factors[i, S1] = min(factors[i, S1] * (0.8 + 0.3 * u1), MAX_SINGULAR)
        factors[i, S2] = min(factors[i, S2] * (0.8 + 0.3 * u2), MAX_SINGULAR)
    elif kind == _BASIC:
        scale = min(0.8 + 0.3 * u1, MAX_SINGULAR / factors[i, S1])
        factors[i, S1] = min(factors[i, S1] * scale, MAX_SINGULAR)
        factors[i, S2] *= scale
        factors[i, B1] *= scale
        factors[i, B2] *= scale


@njit
def largest_singular_value(a, b, c, d):
    """Of the matrix [[a, b], [c, d]]."""
    return 0.5 * (math.sqrt((a + d) * (a + d) + (b - c) * (b - c)) + math.sqrt((a - d) * (a - d) + (b + c) * (b + c)))


@njit
def weigh_a_parameter(instance_key, n, system):
    """Multiply one of the six parameters of all maps of system[:n] (float64[≥ n, 2, 3]) by .2, .6, 1.4 or 1.8, in place.

    The instances of FractalDB (Kataoka et al., 2020). As in Anderson & Farrell's use of them, a weight with which some map
    is not a contraction is drawn again, at most four times; then the system stays unchanged.
    """
    for attempt in range(4):
        draw = np.uint64(2 * attempt)
        parameter = int(uniform64(instance_key, draw) * 6.0)
        weight = weight_of(int(uniform64(instance_key, draw + np.uint64(1)) * 4.0))
        row, column = parameter // 3, parameter % 3
        largest = 0.0
        for i in range(n):
            system[i, row, column] *= weight
            value = largest_singular_value(system[i, 0, 0], system[i, 0, 1], system[i, 1, 0], system[i, 1, 1])
            largest = max(largest, value)
        if largest <= MAX_SINGULAR:
            return
        for i in range(n):
            system[i, row, column] /= weight


@njit(inline="always")
def weight_of(which):
    """The weights of FractalDB's instances other than 1: .2, .6, 1.4 and 1.8."""
    return 0.2 + 0.4 * which + (0.4 if which >= 2 else 0.0)
