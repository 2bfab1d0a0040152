"""Colors by hue, saturation and value, after Anderson & Farrell (2022), as tables of 256 RGB entries per image.

fractal: hue = intensity + shift around the circle, saturation ~ U(.3, 1), value ~ U(.5, 1), each one number per image.
background z in [0, 1]: hue = U(.25, 1) z + shift, saturation = U(.1, .3) z + U(.4, .6), value = U(.3, .6) z + U(.4, .6).
"""

import numpy as np
from numba import njit

from .counter_rng import uniform64

_0, _1, _4, _6 = (np.float32(v) for v in (0.0, 1.0, 4.0, 6.0))
_STEP = np.float32(1.0 / 255.0)
#: The gray of FractalDB's images.
FRACTALDB_GRAY = np.uint8(127)
_FULL, _HALF = np.float32(255.0), np.float32(0.5)


@njit(inline="always")
def _channel(offset, sixths, saturation, value):
    """One channel of HSV: value (1 - saturation max(0, min(k, 4 - k, 1))), k = offset + hue/60° mod 6; offset 5, 3 or 1."""
    k = offset + sixths
    k = k - _6 if k >= _6 else k
    weight = _4 - k if _4 - k < k else k
    weight = _1 if weight > _1 else weight
    weight = _0 if weight < _0 else weight
    return np.uint8(np.int32((value - value * saturation * weight) * _FULL + _HALF))


@njit
def _ramp(hue, hue_slope, saturation, saturation_slope, value, value_slope, table):
    """Fill table[c, i] (uint8[3, 256]) with the RGB of a line in HSV at i/255; hue in turns, hue and slope in [0, 1]."""
    hue6, slope6 = np.float32(6.0 * hue), np.float32(6.0 * hue_slope)
    s0, s1 = np.float32(saturation), np.float32(saturation_slope)
    v0, v1 = np.float32(value), np.float32(value_slope)
    red, green, blue = table[0], table[1], table[2]
    for i in range(np.uint64(256)):
        z = np.float32(np.int32(i)) * _STEP
        sixths = hue6 + slope6 * z
        sixths = sixths - _6 if sixths >= _6 else sixths
        sixths = sixths - _6 if sixths >= _6 else sixths
        s = s0 + s1 * z
        v = v0 + v1 * z
        v = _1 if v > _1 else v
        red[i] = _channel(np.float32(5.0), sixths, s, v)
        green[i] = _channel(np.float32(3.0), sixths, s, v)
        blue[i] = _channel(np.float32(1.0), sixths, s, v)


@njit
def _gray_ramp(first, last, table):
    for i in range(256):
        level = np.uint8(first + (last - first) * i // 255)
        table[0, i] = table[1, i] = table[2, i] = level


@njit
def fractal_table(color_key, color, table):
    """Fill table (uint8[3, 256]) for intensities 0 … 255; without color, grays from 127 (as in FractalDB) to 255."""
    if color:
        shift = uniform64(color_key, np.uint64(0))
        s, v = uniform64(color_key, np.uint64(1)), uniform64(color_key, np.uint64(2))
        _ramp(shift, 1.0, 0.3 + 0.7 * s, 0.0, 0.5 + 0.5 * v, 0.0, table)
    else:
        _gray_ramp(127, 255, table)


@njit
def background_table(color_key, color, table):
    """Fill table (uint8[3, 256]) for the field's values 0 … 255; without color, grays from 0 to 112."""
    if color:
        u = uniform64
        hue_slope, s1 = 0.25 + 0.75 * u(color_key, np.uint64(4)), 0.1 + 0.2 * u(color_key, np.uint64(5))
        s0, v1 = 0.4 + 0.2 * u(color_key, np.uint64(6)), 0.3 + 0.3 * u(color_key, np.uint64(7))
        _ramp(u(color_key, np.uint64(3)), hue_slope, s0, s1, 0.4 + 0.2 * u(color_key, np.uint64(8)), v1, table)
    else:
        _gray_ramp(0, 112, table)
