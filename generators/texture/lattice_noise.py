"""Noise on lattices of random numbers, for rows of points: values, gradients (Perlin, 1985), fractal sums, cells (Worley, 1996).

Points are float32[T] arrays x, y with |x|, |y| times the frequency below 2**22; results lie in [0, 1].
"""

import numpy as np
from numba import njit

from ..elementary32 import clip01, fade, hash32, whole

_0, _1, _2, _HALF = (np.float32(v) for v in (0.0, 1.0, 2.0, 0.5))
_6, _15, _10 = np.float32(6.0), np.float32(15.0), np.float32(10.0)
_FAR = np.float32(1e9)
_ONE = np.int32(1)
_S8, _S12, _S16, _S24 = np.uint32(8), np.uint32(12), np.uint32(16), np.uint32(24)
_TWELVE_BITS, _SIXTEEN_BITS = np.uint32(0xFFF), np.uint32(0xFFFF)
_2_8, _2_12, _2_15, _2_24 = (np.float32(2.0**-k) for k in (8, 12, 15, 24))
_OCTAVE_SALT = np.uint32(0x9E3779B9)
#: Gradients' components are uniform on [-1, 1], so the noise has a standard deviation near 0.2; this makes it use its range.
_CONTRAST = np.float32(1.6)


@njit
def unit32(bits):
    """float32 in [0, 1) from the top 24 bits of a uint32."""
    return np.float32(np.int32(bits >> _S8)) * _2_24


@njit
def _slope(i, j, salt, dx, dy):
    """The random gradient of a lattice point times the way from there."""
    h = hash32(i, j, salt)
    gx = np.float32(np.int32(h & _SIXTEEN_BITS)) * _2_15 - _1
    gy = np.float32(np.int32(h >> _S16)) * _2_15 - _1
    return gx * dx + gy * dy


@njit(inline="always")
def gradient_noise(x, y, salt):
    """Gradient noise of one point, about -1 … 1, 0 on average and at lattice points."""
    i, j = whole(x), whole(y)
    dx, dy = x - np.float32(i), y - np.float32(j)
    i1, j1 = np.int32(i + _ONE), np.int32(j + _ONE)
    sx = dx * dx * dx * (dx * (dx * _6 - _15) + _10)
    sy = dy * dy * dy * (dy * (dy * _6 - _15) + _10)
    above = _slope(i, j, salt, dx, dy)
    above += sx * (_slope(i1, j, salt, dx - _1, dy) - above)
    below = _slope(i, j1, salt, dx, dy - _1)
    below += sx * (_slope(i1, j1, salt, dx - _1, dy - _1) - below)
    return _CONTRAST * (above + sy * (below - above))


@njit
def blocks(x, y, frequency, soft, salt, out):
    """A random number for each unit square, or these interpolated (value noise)."""
    if not soft:
        for k in range(np.uint64(x.size)):
            out[k] = unit32(hash32(whole(x[k] * frequency), whole(y[k] * frequency), salt))
        return
    for k in range(np.uint64(x.size)):
        u, v = x[k] * frequency, y[k] * frequency
        i, j = whole(u), whole(v)
        sx, sy = fade(u - np.float32(i)), fade(v - np.float32(j))
        i1, j1 = np.int32(i + _ONE), np.int32(j + _ONE)
        above, below = unit32(hash32(i, j, salt)), unit32(hash32(i, j1, salt))
        above += sx * (unit32(hash32(i1, j, salt)) - above)
        below += sx * (unit32(hash32(i1, j1, salt)) - below)
        out[k] = above + sy * (below - above)


@njit(error_model="numpy")
def fractal_sum(x, y, frequency, octaves, gain, folds, salt, out):
    """Σ gain^o noise(2^o p), divided by Σ gain^o; folds: 0 the noise itself, 1 its magnitude, 2 one less its magnitude."""
    for k in range(np.uint64(x.size)):
        out[k] = _0
    signed, size, base = (_1, _0, _0) if folds == 0 else ((_0, _1, _0) if folds == 1 else (_0, -_1, _1))
    total, amplitude = _0, _1
    for octave in range(octaves):
        octave_salt = np.uint32(salt + np.uint32(np.uint32(octave) * _OCTAVE_SALT))
        total += amplitude
        for k in range(np.uint64(x.size)):
            value = gradient_noise(x[k] * frequency, y[k] * frequency, octave_salt)
            out[k] += amplitude * (base + signed * value + size * (-value if value < _0 else value))
        amplitude *= gain
        frequency *= _2
    scale, shift = (_HALF / total, _HALF) if folds == 0 else (_1 / total, _0)
    for k in range(np.uint64(x.size)):
        out[k] = clip01(shift + scale * out[k])


@njit
def nearest_points(x, y, frequency, disorder, salt, dx, dy, tone, first, second):
    """For every pixel, the nearest of the points strewn one to a unit square, up to disorder / 2 from its center.

    dx, dy: the way from that point; tone: its random number in [0, 1); first, second: squares of the distances to the
    nearest and the next point, among those of the nine squares around.
    """
    disorder = _1 if disorder > _1 else disorder  # more, and the nearest point could lie beyond the nine squares
    for k in range(np.uint64(x.size)):
        first[k] = second[k] = _FAR
    for shift in range(9):
        across, down = np.int32(shift % 3 - 1), np.int32(shift // 3 - 1)
        for k in range(np.uint64(x.size)):
            u, v = x[k] * frequency, y[k] * frequency
            i, j = np.int32(whole(u) + across), np.int32(whole(v) + down)
            h = hash32(i, j, salt)
            px = np.float32(np.int32(h & _TWELVE_BITS)) * _2_12 - _HALF
            py = np.float32(np.int32((h >> _S12) & _TWELVE_BITS)) * _2_12 - _HALF
            a = u - (np.float32(i) + _HALF + disorder * px)
            b = v - (np.float32(j) + _HALF + disorder * py)
            d = a * a + b * b
            nearer = d < first[k]
            loser = first[k] if nearer else d
            second[k] = loser if loser < second[k] else second[k]
            first[k] = d if nearer else first[k]
            dx[k] = a if nearer else dx[k]
            dy[k] = b if nearer else dy[k]
            tone[k] = np.float32(np.int32(h >> _S24)) * _2_8 if nearer else tone[k]


@njit(error_model="numpy")
def cells(x, y, frequency, disorder, measure, salt, scratch, out):
    """Cells around strewn points: 0 the distance to the point, 1 the difference to the next (dark walls), 2 flat tones.

    scratch: float32[4, T].
    """
    dx, dy, first, second = scratch[0], scratch[1], scratch[2], scratch[3]
    nearest_points(x, y, frequency, disorder, salt, dx, dy, out, first, second)
    if measure == 0:
        for k in range(np.uint64(x.size)):
            out[k] = clip01(np.sqrt(first[k]))
    elif measure == 1:
        for k in range(np.uint64(x.size)):
            out[k] = clip01(_2 * (np.sqrt(second[k]) - np.sqrt(first[k])))
