"""Color jitter, grayscale and solarize on planes float32[M] of red, green and blue in [0, 1], in place.

The formulas are those of `color`, without branches; hue takes the three channels from one angle h in [0, 6):
V − C·clamp(2 − |h − 3|), V − C·clamp(|h − 2| − 1) and V − C·clamp(|h − 4| − 1), V being value and C chroma.
"""

import numpy as np

from wildfern.ssl.augmentation.host_loops import host_loop

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

_0, _1, _2, _3, _4, _6 = (np.float32(i) for i in (0, 1, 2, 3, 4, 6))
_SIXTH = np.float32(1 / 6)
_RED, _GREEN, _BLUE = np.float32(0.2989), np.float32(0.587), np.float32(0.114)  # torchvision's luma, ITU-R 601


@host_loop
def jitter(red, green, blue, order, begin, end, amounts):
    """Brightness, saturation and hue by amounts[kind] in this order, from place `begin` up to place `end`."""
    for place in range(begin, end):
        kind = order[place]
        amount = amounts[kind]
        if kind == BRIGHTNESS and amount != _1:
            scale_and_shift(red, green, blue, amount, _0)
        elif kind == SATURATION and amount != _1:
            _saturate(red, green, blue, amount)
        elif kind == HUE and amount != _0:
            _rotate_hue(red, green, blue, amount)


@host_loop
def _clamp(x):
    x = x if x > _0 else _0
    return x if x < _1 else _1


@host_loop
def _luma(red, green, blue):
    return _RED * red + _GREEN * green + _BLUE * blue


@host_loop
def scale_and_shift(red, green, blue, factor, shift):
    """clamp(factor · x + shift): brightness with shift 0, contrast with (1 − factor) times the mean luma of the image."""
    for i in range(np.uint64(red.size)):
        red[i] = _clamp(factor * red[i] + shift)
        green[i] = _clamp(factor * green[i] + shift)
        blue[i] = _clamp(factor * blue[i] + shift)


@host_loop
def sum_of_luma(red, green, blue):
    """The sum of all pixels' luma."""
    total = _0
    for i in range(np.uint64(red.size)):
        total += _luma(red[i], green[i], blue[i])
    return total


@host_loop
def _saturate(red, green, blue, factor):
    rest = _1 - factor
    for i in range(np.uint64(red.size)):
        r, g, b = red[i], green[i], blue[i]
        gray = rest * _luma(r, g, b)
        red[i], green[i], blue[i] = _clamp(factor * r + gray), _clamp(factor * g + gray), _clamp(factor * b + gray)


@host_loop
def _rotate_hue(red, green, blue, turns):
    shift = _6 * turns
    for i in range(np.uint64(red.size)):
        r, g, b = red[i], green[i], blue[i]
        value = max(r, max(g, b))
        chroma = value - min(r, min(g, b))
        difference, sextant = (b - r, _2) if value == g else (r - g, _4)
        difference, sextant = (g - b, _0) if value == r else (difference, sextant)
        h = difference / (chroma if chroma > _0 else _1) + sextant + shift
        h -= _6 * np.floor(h * _SIXTH)
        red[i] = value - chroma * _clamp(_2 - abs(h - _3))
        green[i] = value - chroma * _clamp(abs(h - _2) - _1)
        blue[i] = value - chroma * _clamp(abs(h - _4) - _1)


@host_loop
def to_gray(red, green, blue):
    """Luma in all three channels."""
    for i in range(np.uint64(red.size)):
        gray = _luma(red[i], green[i], blue[i])
        red[i], green[i], blue[i] = gray, gray, gray


@host_loop
def solarize(values, threshold):
    """Invert values at or above the threshold."""
    for i in range(np.uint64(values.size)):
        values[i] = _1 - values[i] if values[i] >= threshold else values[i]
