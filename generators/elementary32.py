"""Branch-free elementary functions in single precision, so that loops over many values are vectorized.

As in `elementary`, only additions, multiplications and divisions: every machine gives the same bits.
"""

import math

import numpy as np
from numba import njit

_0, _1, _2 = (np.float32(v) for v in (0.0, 1.0, 2.0))
_QUARTER, _HALF, _THREE = np.float32(0.25), np.float32(0.5), np.float32(3.0)
_TINY = np.float32(1e-12)
_S3, _S5, _S7, _S9 = (np.float32((2 * math.pi) ** k / math.factorial(k)) for k in (3, 5, 7, 9))
_S1 = np.float32(2 * math.pi)
#: Arc tangent on [0, 1], in turns: Abramowitz & Stegun, 4.4.49.
_A1, _A3, _A5, _A7, _A9 = (
    np.float32(a / (2 * math.pi)) for a in (0.9998660, -0.3302995, 0.1801410, -0.0851330, 0.0208351)
)


@njit(inline="always")
def whole(x):
    """Largest integer (int32) not above x, |x| < 2**31."""
    i = np.int32(x)
    return np.int32(i - np.int32(1)) if np.float32(i) > x else i


@njit(inline="always")
def floor32(x):
    """Largest integer (as float32) not above x, |x| < 2**31."""
    return np.float32(whole(x))


@njit(inline="always")
def clip01(x):
    """x clipped to [0, 1]."""
    x = _0 if x < _0 else x
    return _1 if x > _1 else x


@njit(inline="always")
def fade(x):
    """3 x² - 2 x³: the smooth step from 0 to 1 on [0, 1]."""
    return x * x * (_THREE - _2 * x)


@njit
def sin_turns(t):
    """sin(2π t), |t| < 2**22; errors below 1e-5."""
    t = t - floor32(t + _HALF)
    size = -t if t < _0 else t
    size = _HALF - size if size > _QUARTER else size
    x = -size if t < _0 else size
    z = x * x
    return x * (_S1 - z * (_S3 - z * (_S5 - z * (_S7 - z * _S9))))


@njit
def cos_turns(t):
    """cos(2π t), |t| < 2**22; errors below 1e-5."""
    return sin_turns(t + _QUARTER)


@njit(error_model="numpy")
def angle_turns(x, y):
    """Direction of (x, y) in turns, in [-1/2, 1/2]; errors below 1e-5; 0 at the origin."""
    along, across = (-x if x < _0 else x), (-y if y < _0 else y)
    more = along if along > across else across
    less = across if along > across else along
    t = less / (more if more > _TINY else _TINY)
    z = t * t
    turns = t * (_A1 + z * (_A3 + z * (_A5 + z * (_A7 + z * _A9))))
    turns = _QUARTER - turns if across > along else turns
    turns = _HALF - turns if x < _0 else turns
    return -turns if y < _0 else turns


@njit
def hash32(i, j, salt):
    """32 random bits (uint32) of a lattice point (int32, int32): odd multipliers, then xorshift and multiply."""
    h = np.uint32(np.uint32(i) * np.uint32(0x9E3779B1)) + np.uint32(np.uint32(j) * np.uint32(0x85EBCA6B))
    h = np.uint32(h) ^ salt
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D))
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(h ^ (h >> np.uint32(16)))
