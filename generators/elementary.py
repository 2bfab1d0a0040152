"""Elementary functions built only from additions, multiplications and divisions, so that every machine gives the same bits.

Math libraries differ in the last digit between systems, and an image must not depend on the machine that renders it.
"""

import math

import numpy as np
from numba import njit

from .counter_rng import fold64, uniform64

_TAU = 6.283185307179586
_LN2, _INVERSE_LN2 = 0.6931471805599453, 1.4426950408889634
_SQRT_HALF = 0.7071067811865476
_ONE = np.uint64(1)


@njit(inline="always")
def _sin_series(x):
    """sin on [-π/4, π/4], Taylor to x^15 (error below 1e-16)."""
    z = x * x
    tail = 1.0 / 6227020800.0 + z * (-1.0 / 1307674368000.0)
    tail = 1.0 / 362880.0 + z * (-1.0 / 39916800.0 + z * tail)
    return x * (1.0 + z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * tail))))


@njit(inline="always")
def _cos_series(x):
    """cos on [-π/4, π/4], Taylor to x^16."""
    z = x * x
    tail = -1.0 / 87178291200.0 + z * (1.0 / 20922789888000.0)
    tail = 1.0 / 40320.0 + z * (-1.0 / 3628800.0 + z * (1.0 / 479001600.0 + z * tail))
    return 1.0 + z * (-0.5 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * tail)))


@njit
def cos_sin(turns):
    """(cos, sin) of an angle in turns, |turns| < 2**31."""
    quarter = int(turns * 4.0 + (0.5 if turns >= 0 else -0.5))
    rest = (turns - quarter * 0.25) * _TAU
    c, s = _cos_series(rest), _sin_series(rest)
    quarter &= 3
    if quarter == 0:
        return c, s
    if quarter == 1:
        return -s, c
    if quarter == 2:
        return -c, -s
    return s, -c


@njit
def exp_negative(x):
    """exp(-x) for x in [0, 8]."""
    z = x / 16.0
    total = 1.0
    for k in range(14, 0, -1):
        total = 1.0 - total * z / k
    total *= total
    total *= total
    total *= total
    return total * total


@njit
def exp(x):
    """e^x; x is clipped to [-700, 700]; relative error below 1e-13."""
    x = min(max(x, -700.0), 700.0)
    halvings = math.floor(x * _INVERSE_LN2 + 0.5)
    rest = x - halvings * _LN2
    total = 1.0
    for k in range(13, 0, -1):
        total = 1.0 + total * rest / k
    return math.ldexp(total, int(halvings))


@njit
def log(x):
    """Natural logarithm of a positive number."""
    mantissa, exponent = math.frexp(x)
    if mantissa < _SQRT_HALF:
        mantissa *= 2.0
        exponent -= 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    total = 0.0
    for k in range(23, 0, -2):
        total = total * z + 1.0 / k
    return 2.0 * s * total + exponent * _LN2


@njit
def power(x, exponent):
    """x^exponent for x ≥ 0, as exp(exponent log x); 0 to any power is 0."""
    return exp(exponent * log(x)) if x > 0.0 else 0.0


@njit
def angle(x, y):
    """Direction of (x, y) in turns, in (-1/2, 1/2], with an error below 1e-9; 0 at the origin."""
    across, along = abs(y), abs(x)
    steep = across > along
    if steep:
        across, along = along, across
    t = across / along if along > 0.0 else 0.0
    diagonal = t > 0.41421356237309503
    if diagonal:
        t = (t - 1.0) / (t + 1.0)
    z = t * t
    total = 0.0
    for k in range(23, 0, -2):
        total = 1.0 / k - total * z
    turns = t * total / _TAU
    if diagonal:
        turns += 0.125
    if steep:
        turns = 0.25 - turns
    if x < 0.0:
        turns = 0.5 - turns
    return -turns if y < 0.0 else turns


@njit
def normal(key, draw):
    """A standard normal number (float64) from draws `draw` and `draw + 1` (uint64) of a key: Box & Muller, 1958."""
    radius = math.sqrt(-2.0 * log(1.0 - uniform64(key, draw)))
    return radius * cos_sin(uniform64(key, draw + _ONE))[0]


@njit
def drawn(key, draw):
    """`uniform64` of any integer, not inlined: functions with many draws compile much faster."""
    return uniform64(key, np.uint64(draw))


@njit
def folded(key, part):
    """`fold64` of any integer, not inlined, as `drawn`."""
    return fold64(key, np.uint64(part))
