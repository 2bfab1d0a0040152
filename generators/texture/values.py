"""Patterns that read points and functions of values, as loops over float32[T] arrays; every result lies in [0, 1]."""

import numpy as np
from numba import njit

from ..elementary32 import angle_turns, clip01, cos_turns, fade, floor32, sin_turns

_0, _1, _2, _HALF = (np.float32(v) for v in (0.0, 1.0, 2.0, 0.5))
_PETALS, _DIAMOND = np.float32(0.35), np.float32(0.75)


@njit
def _profile(turns, sharpness):
    """A sine wave from 0 to 1, steepened and clipped to something between a sine and a square."""
    return clip01(_HALF + _HALF * sharpness * sin_turns(turns))


@njit
def stripes(x, frequency, sharpness, phase, out):
    """Waves along the first axis."""
    for k in range(np.uint64(x.size)):
        out[k] = _profile(frequency * x[k] + phase, sharpness)


@njit
def rings(x, y, frequency, sharpness, phase, out):
    """Waves along the distance from the center."""
    for k in range(np.uint64(x.size)):
        out[k] = _profile(frequency * np.sqrt(x[k] * x[k] + y[k] * y[k]) + phase, sharpness)


@njit
def spokes(x, y, arms, twist, sharpness, phase, out):
    """Waves around the center, twisted into spirals."""
    for k in range(np.uint64(x.size)):
        r = np.sqrt(x[k] * x[k] + y[k] * y[k])
        out[k] = _profile(arms * angle_turns(x[k], y[k]) + twist * r + phase, sharpness)


@njit(error_model="numpy")
def shape(x, y, outline, radius, softness, petals, out):
    """A disc, square or diamond around the center: 1 inside, 0 outside; soft ones are cones. Petals make a flower of it."""
    slope = _1 / softness
    inverse = _1 / radius
    depth = _PETALS if petals > _0 else _0
    round, square = (_1 if outline == 0 else _0), (_1 if outline == 1 else _0)
    diamond = _DIAMOND if outline == 2 else _0
    for k in range(np.uint64(x.size)):
        u, v = x[k], y[k]
        au, av = (-u if u < _0 else u), (-v if v < _0 else v)
        d = round * np.sqrt(u * u + v * v) + square * (au if au > av else av) + diamond * (au + av)
        d *= _1 + depth * cos_turns(petals * angle_turns(u, v))
        out[k] = clip01((_1 - d * inverse) * slope)


@njit
def copy(v, out):
    """The value of another place."""
    for k in range(np.uint64(v.size)):
        out[k] = v[k]


@njit
def wave(v, cycles, phase):
    for k in range(np.uint64(v.size)):
        v[k] = _HALF + _HALF * sin_turns(cycles * v[k] + phase)


@njit
def fold(v, folds):
    """A zigzag between 0 and 1 that starts at 0 and takes `folds` runs."""
    for k in range(np.uint64(v.size)):
        t = _HALF * folds * v[k]
        t = t - floor32(t)
        v[k] = _2 * (t if t < _HALF else _1 - t)


@njit
def saw(v, teeth):
    for k in range(np.uint64(v.size)):
        t = teeth * v[k]
        v[k] = t - floor32(t)


@njit(error_model="numpy")
def step(v, at, width):
    """A smooth step from 0 to 1, `width` wide, around `at`."""
    start, slope = at - _HALF * width, _1 / width
    for k in range(np.uint64(v.size)):
        v[k] = fade(clip01((v[k] - start) * slope))


@njit(error_model="numpy")
def bias(v, toward):
    """A power-like curve that takes 1/2 to `toward` (Schlick, 1994)."""
    bend = _1 / toward - _2
    for k in range(np.uint64(v.size)):
        v[k] = clip01(v[k] / (bend * (_1 - v[k]) + _1))


@njit
def terraces(v, levels):
    inverse = _1 / (levels - _1)
    for k in range(np.uint64(v.size)):
        v[k] = clip01(floor32(v[k] * levels) * inverse)


@njit
def blend(v, w, share):
    for k in range(np.uint64(v.size)):
        v[k] = v[k] + share * (w[k] - v[k])


@njit
def multiply(v, w):
    for k in range(np.uint64(v.size)):
        v[k] = v[k] * w[k]


@njit
def screen(v, w):
    for k in range(np.uint64(v.size)):
        v[k] = _1 - (_1 - v[k]) * (_1 - w[k])


@njit
def darker(v, w):
    for k in range(np.uint64(v.size)):
        v[k] = v[k] if v[k] < w[k] else w[k]


@njit
def lighter(v, w):
    for k in range(np.uint64(v.size)):
        v[k] = v[k] if v[k] > w[k] else w[k]


@njit
def difference(v, w):
    for k in range(np.uint64(v.size)):
        d = v[k] - w[k]
        v[k] = -d if d < _0 else d


@njit
def mix(v, w, by):
    for k in range(np.uint64(v.size)):
        v[k] = v[k] + by[k] * (w[k] - v[k])
