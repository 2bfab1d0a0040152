"""Sine, cosine and exponential from additions and multiplications alone, so that every machine gives the same bits.

The mathematical libraries of two systems differ in the last digit, and a picture must not depend on where it is drawn.
"""

from numba import njit

_TAU = 6.283185307179586


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
