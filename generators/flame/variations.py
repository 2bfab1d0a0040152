"""The nonlinear maps of fractal flames, for many points side by side (Draves & Reckase, 2003, appendix).

r² = x² + y², θ is the angle from the y axis (atan2(x, y)), φ that from the x axis, Ω is 0 or π. In single
precision, from additions, multiplications, divisions and roots only.
"""

import math

import numpy as np
from numba import njit

from ..elementary32 import angle_turns, cos_turns, sin_turns

#: Points of a pool. Of numpy's type: functions would be compiled again for a literal.
POOL = np.int64(1024)
#: Names, in the order of the numbers in codes.
VARIATIONS = (
    "linear",
    "sinusoidal",
    "spherical",
    "swirl",
    "horseshoe",
    "polar",
    "handkerchief",
    "heart",
    "disc",
    "spiral",
    "hyperbolic",
    "diamond",
    "ex",
    "julia",
    "bent",
    "fisheye",
    "exponential",
    "cylinder",
    "bubble",
    "eyefish",
)
_0, _1, _2, _4, _HALF, _PI = (np.float32(v) for v in (0.0, 1.0, 2.0, 4.0, 0.5, math.pi))
_TURN, _PER_RADIAN, _QUARTER = np.float32(2.0 * math.pi), np.float32(0.5 / math.pi), np.float32(0.25)
#: Added to squared radii before a division, as in the published program.
_TINY = np.float32(1e-6)
#: e^x ends at e^_STEEPEST.
_STEEPEST, _64TH = np.float32(8.0), np.float32(1.0 / 64.0)
_C2, _C3, _C4, _C5 = (np.float32(1.0 / math.factorial(k)) for k in (2, 3, 4, 5))


@njit
def measure(x, y, n, radius, angle):
    """radius and angle (θ in turns) of n points, all float32[≥ n]."""
    for k in range(np.uint64(n)):
        radius[k] = np.float32(math.sqrt(x[k] * x[k] + y[k] * y[k] + _TINY))
        angle[k] = angle_turns(y[k], x[k])


@njit
def sines(t, n, cosine, sine):
    """cosine, sine (float32[≥ n]) of n angles t in turns."""
    for k in range(np.uint64(n)):
        a = t[k]
        a = a if (a < np.float32(1e6)) & (a > np.float32(-1e6)) else _0
        cosine[k], sine[k] = cos_turns(a), sin_turns(a)


@njit
def exponential32(x):
    """e^x, float32, for x clipped to [-16, 8]; relative error below 1e-4."""
    size = x if x < _STEEPEST else _STEEPEST
    size = size if size > np.float32(-16.0) else np.float32(-16.0)
    t = size * _64TH
    e = _1 + t * (_1 + t * (_C2 + t * (_C3 + t * (_C4 + t * _C5))))
    e = e * e
    e = e * e
    e = e * e
    e = e * e
    e = e * e
    return e * e


@njit(error_model="numpy")
def _by_sines(kind, weight, x, y, n, r, angle, cosine, sine, other_cosine, other_sine, u, v):
    """The variations that need only sines: `cosine`, `sine` of θ or x, the others of what `_turns` says."""
    for k in range(np.uint64(n)):
        c, s, d, t, radius = cosine[k], sine[k], other_cosine[k], other_sine[k], r[k]
        inverse = _1 / radius
        a, b = x[k], y[k]
        if kind == 1:  # sinusoidal: sin x, sin y
            a, b = s, t
        elif kind == 3:  # swirl: x sin r² - y cos r², x cos r² + y sin r²
            a, b = a * t - b * d, a * d + b * t
        elif kind == 6:  # handkerchief: r sin(θ + r), r cos(θ - r)
            a, b = radius * (s * d + c * t), radius * (c * d + s * t)
        elif kind == 7:  # heart: r sin θr, -r cos θr
            a, b = radius * t, -radius * d
        elif kind == 8:  # disc: θ/π sin πr, θ/π cos πr
            a, b = _2 * angle[k] * t, _2 * angle[k] * d
        elif kind == 9:  # spiral: (cos θ + sin r) / r, (sin θ - cos r) / r
            a, b = inverse * (c + t), inverse * (s - d)
        elif kind == 10:  # hyperbolic: sin θ / r, r cos θ
            a, b = inverse * s, radius * c
        elif kind == 11:  # diamond: sin θ cos r, cos θ sin r
            a, b = s * d, c * t
        elif kind == 12:  # ex: r (p³ + q³), r (p³ - q³), p = sin(θ + r), q = cos(θ - r)
            p, q = s * d + c * t, c * d + s * t
            p, q = p * p * p, q * q * q
            a, b = radius * (p + q), radius * (p - q)
        elif kind == 13:  # julia: √r cos(θ/2 + Ω), √r sin(θ/2 + Ω); every second point has Ω = π
            root = np.float32(math.sqrt(radius))
            root = root if k & np.uint64(1) else -root
            a, b = root * d, root * t
        elif kind == 16:  # exponential: e^(x - 1) cos πy, e^(x - 1) sin πy
            e = exponential32(a - _1)
            a, b = e * d, e * t
        elif kind == 17:  # cylinder: sin x, y
            a = s
        u[k] += weight * a
        v[k] += weight * b


@njit(error_model="numpy")
def _by_radius(kind, weight, x, y, n, r, angle, u, v):
    """The variations of the radius and the angle alone."""
    for k in range(np.uint64(n)):
        radius, a, b = r[k], x[k], y[k]
        if kind == 2:  # spherical: (x, y) / r²
            inverse = _1 / (radius * radius)
            a, b = a * inverse, b * inverse
        elif kind == 4:  # horseshoe: (x - y)(x + y) / r, 2xy / r
            inverse = _1 / radius
            a, b = (a - b) * (a + b) * inverse, _2 * a * b * inverse
        elif kind == 5:  # polar: θ/π, r - 1
            a, b = _2 * angle[k], radius - _1
        elif kind == 14:  # bent: 2x where x < 0, y/2 where y < 0
            a, b = _2 * a if a < _0 else a, _HALF * b if b < _0 else b
        elif kind == 15:  # fisheye: 2 (y, x) / (r + 1)
            factor = _2 / (radius + _1)
            a, b = factor * b, factor * a
        elif kind == 18:  # bubble: 4 (x, y) / (r² + 4)
            factor = _4 / (radius * radius + _4)
            a, b = factor * a, factor * b
        elif kind == 19:  # eyefish: 2 (x, y) / (r + 1)
            factor = _2 / (radius + _1)
            a, b = factor * a, factor * b
        u[k] += weight * a
        v[k] += weight * b


@njit
def _turns(kind, x, y, n, r, angle, first, second):
    """The angles, in turns, whose sines a variation needs: first is θ, or x; second depends on the variation."""
    for k in range(np.uint64(n)):
        one, two = angle[k], r[k] * _PER_RADIAN
        if kind == 1 or kind == 17:
            one, two = x[k] * _PER_RADIAN, y[k] * _PER_RADIAN
        elif kind == 3:
            two = r[k] * r[k] * _PER_RADIAN
        elif kind == 7:
            two = angle[k] * r[k]
        elif kind == 8:
            two = _HALF * r[k]
        elif kind == 13:
            two = _HALF * angle[k]
        elif kind == 16:
            two = _HALF * y[k]
        first[k], second[k] = one, two


@njit
def add_variation(kind, weight, x, y, n, space, u, v):
    """(u, v) += weight · V(x, y) of n points (float32[≥ n]); `kind` is a position in VARIATIONS.

    space: float32[8, ≥ n], rows 0 and 1 the points' radius and angle by `measure`.
    """
    r, angle = space[0], space[1]
    if kind == 0 or kind == 2 or kind == 4 or kind == 5 or kind == 14 or kind == 15 or kind >= 18:
        _by_radius(kind, weight, x, y, n, r, angle, u, v)
        return
    _turns(kind, x, y, n, r, angle, space[2], space[3])
    sines(space[2], n, space[4], space[5])
    sines(space[3], n, space[6], space[7])
    _by_sines(kind, weight, x, y, n, r, angle, space[4], space[5], space[6], space[7], u, v)
