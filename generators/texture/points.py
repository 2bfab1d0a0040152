"""Instructions that bend the plane: each reads points (x, y) and the number of their tile, and writes new ones.

All are loops over float32[T] arrays; points stay within ±FARTHEST, tones in [0, 1].
"""

import numpy as np
from numba import njit

from ..elementary import cos_sin
from ..elementary32 import angle_turns, cos_turns, floor32, hash32, sin_turns, whole
from .lattice_noise import nearest_points, unit32

FARTHEST = np.float32(256.0)
_0, _1, _2, _HALF = (np.float32(v) for v in (0.0, 1.0, 2.0, 0.5))
_I1, _I2 = np.int32(1), np.int32(2)
_WIDE, _FLAT = np.float32(0.75), np.float32(1.5)
_SQRT3, _INVERSE_SQRT3 = np.float32(3.0**0.5), np.float32(3.0**-0.5)
_TONE_ANGLES = np.float32(61.0)
SQUARES, BRICKS, MIRRORS, HEXAGONS = range(4)


@njit
def _near(x):
    x = -FARTHEST if x < -FARTHEST else x
    return FARTHEST if x > FARTHEST else x


@njit
def turn(x, y, angle, zoom, stretch, cx, cy, out_x, out_y):
    """Move the center to (cx, cy), turn, zoom, and stretch the first axis against the second."""
    c, s = cos_sin(np.float64(angle))
    root = np.sqrt(stretch)
    a, b = np.float32(c) * zoom * root, np.float32(s) * zoom * root
    d, e = -np.float32(s) * zoom / root, np.float32(c) * zoom / root
    for k in range(np.uint64(x.size)):
        u, v = x[k] - cx, y[k] - cy
        out_x[k] = _near(a * u + b * v)
        out_y[k] = _near(d * u + e * v)


@njit
def _rectangles(x, y, across, down, shift, mirrored, salt, out_x, out_y, tone):
    """Tiles 1 / across wide and 1 / down high, every other row shifted, or every other one mirrored each way."""
    flip = np.int32(1 if mirrored else 0)
    for k in range(np.uint64(x.size)):
        v = y[k] * down
        j = whole(v)
        u = x[k] * across + shift * np.float32(j & _I1)
        i = whole(u)
        u, v = u - np.float32(i) - _HALF, v - np.float32(j) - _HALF
        out_x[k] = -u if i & flip else u
        out_y[k] = -v if j & flip else v
        tone[k] = unit32(hash32(i, j, salt))


@njit
def _hexagons(x, y, count, salt, out_x, out_y, tone):
    """Cells of the nearest point of two lattices of rectangles 1 × √3, one in the middle of the other."""
    for k in range(np.uint64(x.size)):
        u, v = x[k] * count, y[k] * count
        w = v * _INVERSE_SQRT3
        i, j = whole(u + _HALF), whole(w + _HALF)
        p, q = u - np.float32(i), v - _SQRT3 * np.float32(j)
        i2, j2 = whole(u), whole(w)
        p2, q2 = u - np.float32(i2) - _HALF, v - _SQRT3 * (np.float32(j2) + _HALF)
        second = p2 * p2 + q2 * q2 < p * p + q * q
        ii = np.int32(_I2 * i2 + _I1) if second else np.int32(_I2 * i)
        jj = np.int32(_I2 * j2 + _I1) if second else np.int32(_I2 * j)
        out_x[k] = p2 if second else p
        out_y[k] = q2 if second else q
        tone[k] = unit32(hash32(ii, jj, salt))


@njit
def _turn_tiles(x, y, tone, steps):
    """Turn every tile by an angle that its tone decides, one of `steps` (0: any)."""
    inverse = _1 / np.float32(max(steps, 1))
    for k in range(np.uint64(x.size)):
        t = tone[k] * _TONE_ANGLES
        t = floor32(t * np.float32(steps)) * inverse if steps > 0 else t
        c, s, u, v = cos_turns(t), sin_turns(t), x[k], y[k]
        x[k], y[k] = c * u - s * v, s * u + c * v


@njit
def tile(x, y, layout, count, spin, salt, out_x, out_y, tone):
    """Coordinates from the middle of a tile, about ±1/2, turned by `spin` (none, quarters, any), and the tile's number.

    Mirrors do not turn: their tiles fit together as they are.
    """
    if layout == HEXAGONS:
        _hexagons(x, y, count, salt, out_x, out_y, tone)
    elif layout == BRICKS:
        _rectangles(x, y, count * _WIDE, count * _FLAT, _HALF, False, salt, out_x, out_y, tone)
    else:
        _rectangles(x, y, count, count, _0, layout == MIRRORS, salt, out_x, out_y, tone)
    if spin > 0 and layout != MIRRORS:
        _turn_tiles(out_x, out_y, tone, 4 if spin == 1 else 0)


@njit
def scatter(x, y, count, disorder, spin, salt, scratch, out_x, out_y, tone):
    """Coordinates from the nearest strewn point, turned at random if `spin`, and its number. scratch: float32[4, T]."""
    nearest_points(x, y, count, disorder, salt, out_x, out_y, tone, scratch[0], scratch[1])
    if spin > 0:
        _turn_tiles(out_x, out_y, tone, 0)


@njit
def kaleidoscope(x, y, sectors, angle, out_x, out_y):
    """Fold the plane between two mirrors 1 / (2 sectors) of a turn apart: what lies there is seen 2 sectors times around."""
    width = _HALF / sectors
    inverse = _1 / (_2 * width)
    for k in range(np.uint64(x.size)):
        t = (angle_turns(x[k], y[k]) - angle) * inverse
        t = t - floor32(t)
        t = t if t < _HALF else _1 - t
        t = t / inverse + angle
        r = np.sqrt(x[k] * x[k] + y[k] * y[k])
        out_x[k], out_y[k] = r * cos_turns(t), r * sin_turns(t)


@njit
def polar(x, y, sectors, spread, out_x, out_y):
    """The angle, mirrored so that it has no seam, and the distance from the center, as coordinates."""
    across = np.float32(4.0) * sectors
    for k in range(np.uint64(x.size)):
        t = angle_turns(x[k], y[k])
        out_x[k] = across * (-t if t < _0 else t)
        out_y[k] = _near(spread * np.sqrt(x[k] * x[k] + y[k] * y[k]))


@njit(error_model="numpy")
def swirl(x, y, turns, radius, out_x, out_y):
    """Turn by `turns` at the center, less with distance, and by half at `radius`."""
    inverse = _1 / (radius * radius)
    for k in range(np.uint64(x.size)):
        u, v = x[k], y[k]
        t = turns / (_1 + (u * u + v * v) * inverse)
        c, s = cos_turns(t), sin_turns(t)
        out_x[k], out_y[k] = c * u - s * v, s * u + c * v


@njit(error_model="numpy")
def lens(x, y, radius, out_x, out_y):
    """p / (|p|² / radius² + 1/2): magnified in the middle, the far plane brought back near the center."""
    inverse = _1 / (radius * radius)
    for k in range(np.uint64(x.size)):
        scale = _1 / ((x[k] * x[k] + y[k] * y[k]) * inverse + _HALF)
        out_x[k], out_y[k] = x[k] * scale, y[k] * scale


@njit
def ripple(x, y, amount, frequency, phase, out_x, out_y):
    """Shift each axis by a sine of the other."""
    for k in range(np.uint64(x.size)):
        out_x[k] = x[k] + amount * sin_turns(frequency * y[k] + phase)
        out_y[k] = y[k] + amount * sin_turns(frequency * x[k] - phase)


@njit
def warp(x, y, amount, across, down, out_x, out_y):
    """Shift by two values; 1/2 means no shift."""
    for k in range(np.uint64(x.size)):
        out_x[k] = x[k] + amount * (across[k] - _HALF)
        out_y[k] = y[k] + amount * (down[k] - _HALF)
