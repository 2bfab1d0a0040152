"""Instances of a class: small changes of a system's parameters that keep every map a contraction.

After Anderson & Farrell (2022), who draw again until the changed system is still non-expansive; here the change is made
on the factors of A = R(θ) diag(s1, s2) R(φ) D, where the bound on the singular values can simply be kept.
"""

from typing import Literal, get_args

import numpy as np
from numba import njit

from .counter_rng import uniform64
from .ifs_sampler import B1, B2, MAX_SINGULAR, PHI, S1, S2, THETA

Jitter = Literal["svd", "sval", "basic", "none"]
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
