"""Crop, flip and anti-aliased resize of one image, row by row, with the nonzero weights of each line only.

The weights are those of `crop.resize_weights`, for either interpolation. Every output pixel of a line has a window of `taps`
source pixels, so that the same loop serves all pixels of a line: a row is resized across into a ring of the last `taps` rows,
whose weighted sum is an output row.
"""

import numpy as np
from numba import njit

from wildfern.ssl.augmentation.host_loops import exact_loop, host_loop

_0, _HALF, _1, _2 = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
_3_2, _5_2, _4 = np.float32(1.5), np.float32(2.5), np.float32(4)
_BYTE, _8, _16 = np.uint32(255), np.uint32(8), np.uint32(16)


@njit
def max_taps(length, size, cubic):
    """The widest window of `filter_taps` for lines of up to `length` pixels."""
    return 2 * (2 * length // size + 2) if cubic else 2 * (length // size + 1)


@host_loop
def filter_taps(length, flip, cubic, total, first, weights, sums):
    """Windows of the pixels of a line of `length` pixels that is resized to `first.size`; returns their width.

    Output pixel x is the sum over k < taps of weights[k, x] times pixel first[x] + k, and its weights, a triangle's or a
    cubic's, add up to `total`. taps is even, or 1 without resizing; pixel `length` may be in a window, with weight 0.
    first: int32[size], weights: float32[≥ taps, size], sums: float32[size] to work in.
    """
    size = first.size
    if length == size:
        for x in range(size):
            first[size - 1 - x if flip else x] = x
            weights[0, x] = total
        return 1
    scale = np.float32(length) / np.float32(size)
    unit = max(scale, _1)
    reach = _2 * unit if cubic else unit
    taps = min(2 * int(np.ceil(reach)), length + length % 2)
    _windows(scale, reach, np.int32(length + length % 2 - taps), flip, first, sums)
    for k in range(taps):
        if cubic:
            _cubic_tap(np.int32(k), np.int32(length), scale, unit, flip, first, weights[k], sums)
        else:
            _tap(np.int32(k), np.int32(length), scale, unit, flip, first, weights[k], sums)
    for k in range(taps):
        _share(weights[k], sums, total)
    return taps


@exact_loop
def _center(x, size, scale, flip):
    """Position of output pixel x in the source, in pixels. Rounded as in torch, which matters far from 0."""
    at = np.float32(size - 1) - np.float32(x) if flip else np.float32(x)
    return (at + _HALF) * scale


@exact_loop
def _windows(scale, reach, last, flip, first, sums):
    for x in range(np.uint64(first.size)):
        left = np.int32(np.floor(_center(np.int32(x), first.size, scale, flip) - reach + _HALF))
        left = left if left > np.int32(0) else np.int32(0)
        first[x] = left if left < last else last
        sums[x] = _0


@exact_loop
def _tap(k, length, scale, unit, flip, first, weights, sums):
    for x in range(np.uint64(first.size)):
        pixel = first[x] + k
        center = _center(np.int32(x), first.size, scale, flip)
        weight = _1 - abs(np.float32(pixel) + _HALF - center) / unit
        weight = weight if weight > _0 else _0
        weight = weight if pixel < length else _0
        weights[x] = weight
        sums[x] += weight


@exact_loop
def _cubic_tap(k, length, scale, unit, flip, first, weights, sums):
    """As `_tap`, by Keys' kernel (`crop._cubic`)."""
    for x in range(np.uint64(first.size)):
        pixel = first[x] + k
        center = _center(np.int32(x), first.size, scale, flip)
        d = abs(np.float32(pixel) + _HALF - center) / unit
        near = (_3_2 * d - _5_2) * (d * d) + _1
        far = ((_5_2 - _HALF * d) * d - _4) * d + _2
        weight = near if d < _1 else far if d < _2 else _0
        weight = weight if pixel < length else _0
        weights[x] = weight
        sums[x] += weight


@host_loop
def clip(values, most):
    """Clip to [0, most]: a cubic filter overshoots."""
    for x in range(np.uint64(values.size)):
        value = values[x] if values[x] > _0 else _0
        values[x] = value if value < most else most


@host_loop
def _share(weights, sums, total):
    for x in range(np.uint64(weights.size)):
        weights[x] *= total / sums[x]


@host_loop
def resize_across(line, taps, first, weights, packed, out):
    """Resize a row of pixels (uint8[3 * w]) to out (float32[3 * size]: red, green, blue); packed: uint32[> w]."""
    size, width = first.size, line.size // 3
    _pack(line, packed[:width])
    packed[width] = 0
    red, green, blue = out[:size], out[size : 2 * size], out[2 * size :]
    if taps == 1:
        _pick(packed, first, red, green, blue)
        return
    _weigh(packed, first, weights[0], weights[1], red, green, blue)
    for k in range(2, taps, 2):
        _weigh_more(packed[k:], first, weights[k], weights[k + 1], red, green, blue)


@host_loop
def _pack(line, packed):
    """Each pixel as one number: an indexed read of a pixel is then one access instead of three."""
    for x in range(np.uint64(packed.size)):
        at = np.uint64(3) * x
        red, green, blue = line[at], line[at + np.uint64(1)], line[at + np.uint64(2)]
        packed[x] = np.uint32(red) | np.uint32(green) << _8 | np.uint32(blue) << _16


@host_loop
def _red(pixel):
    return np.float32(np.int32(pixel & _BYTE))


@host_loop
def _green(pixel):
    return np.float32(np.int32(pixel >> _8 & _BYTE))


@host_loop
def _blue(pixel):
    return np.float32(np.int32(pixel >> _16))


@host_loop
def _pick(packed, first, red, green, blue):
    for x in range(np.uint64(red.size)):
        p = packed[np.uint64(first[x])]
        red[x], green[x], blue[x] = _red(p), _green(p), _blue(p)


@host_loop
def _weigh(packed, first, near, far, red, green, blue):
    for x in range(np.uint64(red.size)):
        at, u, v = np.uint64(first[x]), near[x], far[x]
        p, q = packed[at], packed[at + np.uint64(1)]
        red[x] = u * _red(p) + v * _red(q)
        green[x] = u * _green(p) + v * _green(q)
        blue[x] = u * _blue(p) + v * _blue(q)


@host_loop
def _weigh_more(packed, first, near, far, red, green, blue):
    for x in range(np.uint64(red.size)):
        at, u, v = np.uint64(first[x]), near[x], far[x]
        p, q = packed[at], packed[at + np.uint64(1)]
        red[x] += u * _red(p) + v * _red(q)
        green[x] += u * _green(p) + v * _green(q)
        blue[x] += u * _blue(p) + v * _blue(q)


@host_loop
def resize_down(ring, taps, first, weights, red, green, blue):
    """The weighted sum of `taps` resized rows from row `first` on; row r is ring[r % taps] (float32[taps, 3 * size])."""
    if taps == 1:
        _row(ring[0], weights[0], red, green, blue)
        return
    _rows(ring[first % taps], ring[(first + 1) % taps], weights[0], weights[1], red, green, blue)
    for k in range(2, taps, 2):
        near, far = ring[(first + k) % taps], ring[(first + k + 1) % taps]
        _more_rows(near, far, weights[k], weights[k + 1], red, green, blue)


@host_loop
def _row(line, u, red, green, blue):
    size = np.uint64(red.size)
    for x in range(size):
        red[x], green[x], blue[x] = u * line[x], u * line[size + x], u * line[size + size + x]


@host_loop
def _rows(near, far, u, v, red, green, blue):
    size = np.uint64(red.size)
    for x in range(size):
        red[x] = u * near[x] + v * far[x]
        green[x] = u * near[size + x] + v * far[size + x]
        blue[x] = u * near[size + size + x] + v * far[size + size + x]


@host_loop
def _more_rows(near, far, u, v, red, green, blue):
    size = np.uint64(red.size)
    for x in range(size):
        red[x] += u * near[x] + v * far[x]
        green[x] += u * near[size + x] + v * far[size + x]
        blue[x] += u * near[size + size + x] + v * far[size + size + x]
