"""Colors of textures, neural fractals and flames: the style of a class, and the palettes of an instance as RGB tables.

A palette is a gradient between random colors, smooth or in flat bands, or has a cosine for each channel.
"""

import math

import numpy as np
from numba import njit

from .elementary import cos_sin, drawn

#: Entries of a palette.
ENTRIES = 256
MOST_COLORS = 6
#: Numbers of a class's style, by place.
KIND, COLORS, EVENNESS, RELIEF, SECOND, WIDTHS = 0, 1, 2, 3, 4, 5
STYLE = WIDTHS + MOST_COLORS
SMOOTH, BANDS, COSINES = range(3)
NO_SECOND, SHADE, SECOND_PALETTE = range(3)
_SHADOW = np.float32(0.35)
_ORANGE = 0.08


@njit
def draw_style(style_key, style):
    """Draw style (float64[STYLE]): the palette's kind and colors, how evenly it is used, relief, and the second layer."""
    u = drawn(style_key, 0)
    style[KIND] = SMOOTH if u < 0.6 else (BANDS if u < 0.75 else COSINES)
    style[COLORS] = 2 + int(drawn(style_key, 1) * (MOST_COLORS - 1))
    style[EVENNESS] = 0.3 + 0.6 * drawn(style_key, 2)
    u = drawn(style_key, 3)
    style[RELIEF] = 0.0 if u < 0.6 else 0.01 + 0.15 * (u - 0.6)
    u = drawn(style_key, 4)
    style[SECOND] = NO_SECOND if u < 0.55 else (SHADE if u < 0.8 else SECOND_PALETTE)
    for k in range(MOST_COLORS):
        style[WIDTHS + k] = 0.4 + drawn(style_key, 5 + k)


@njit
def _hsv(hue, saturation, value, rgb):
    """RGB in [0, 1] of a hue in turns."""
    for c in range(3):
        k = 5.0 - 2.0 * c + 6.0 * (hue - math.floor(hue))
        k = k - 6.0 if k >= 6.0 else k
        rgb[c] = value - value * saturation * max(0.0, min(k, 4.0 - k, 1.0))


@njit
def _draw_colors(palette_key, count, colors):
    """`count` colors (float64[≥ count, 3]) of hues around one, their values from dark to light, in order or in turn."""
    hue, spread = drawn(palette_key, 0), drawn(palette_key, 1)
    vivid = drawn(palette_key, 2)
    ordered, rising = drawn(palette_key, 3) < 0.4, drawn(palette_key, 4) < 0.5
    for k in range(count):
        draws = 5 + 3 * k
        place = k if rising else count - 1 - k
        if not ordered:  # dark and light in turn
            place = place // 2 if place % 2 == 0 else count - 1 - place // 2
        level = (place + 0.6 * (drawn(palette_key, draws) - 0.5)) / max(count - 1, 1)
        value = min(max(0.1 + 0.85 * level, 0.05), 1.0)
        saturation = (0.2 + 0.8 * vivid) * drawn(palette_key, draws + 1)
        own = hue + spread * (drawn(palette_key, draws + 2) - 0.5)
        # Hues are denser around orange and blue, as in photographs, and rarer around green and magenta.
        own -= 0.06 * cos_sin(2.0 * (own - _ORANGE))[1]
        _hsv(own, saturation, value, colors[k])


@njit
def draw_palette(palette_key, style, color, colors, table):
    """Fill table (float32[3, ENTRIES]) with values in 0 … 255; without color all channels have the brightness.

    colors: float64[MOST_COLORS, 3] workspace.
    """
    count = int(style[COLORS])
    if style[KIND] == COSINES:
        spread = 0.08 + 0.5 * drawn(palette_key, 0)
        base, cycles = drawn(palette_key, 1), 0.5 + 0.2 * count * drawn(palette_key, 2)
        for c in range(3):
            phase = base + spread * drawn(palette_key, 3 + c)
            rate = cycles * (0.85 + 0.3 * drawn(palette_key, 6 + c))
            middle = 0.4 + 0.2 * drawn(palette_key, 9 + c)
            for k in range(ENTRIES):
                value = middle + 0.4 * cos_sin(rate * k / (ENTRIES - 1) + phase)[0]
                table[c, k] = np.float32(255.0 * value)
    else:
        _draw_colors(palette_key, count, colors)
        bands = style[KIND] == BANDS
        pieces = count if bands else count - 1
        whole = 0.0
        for k in range(pieces):
            whole += style[WIDTHS + k]
        piece, start, end = 0, 0.0, style[WIDTHS] / whole
        for k in range(ENTRIES):
            t = (k + 0.5) / ENTRIES
            while t > end and piece < pieces - 1:
                piece += 1
                start, end = end, end + style[WIDTHS + piece] / whole
            w = 0.0 if bands else min(max((t - start) / (end - start), 0.0), 1.0)
            other = min(piece + 1, count - 1)
            for c in range(3):
                table[c, k] = np.float32(255.0 * (colors[piece, c] + w * (colors[other, c] - colors[piece, c])))
    if not color:
        for k in range(ENTRIES):
            gray = np.float32(0.299) * table[0, k] + np.float32(0.587) * table[1, k] + np.float32(0.114) * table[2, k]
            table[0, k] = table[1, k] = table[2, k] = gray


@njit
def saturate(table, factor):
    """Move all channels of a palette `factor` times as far from the brightest one, to 0 at most; grays stay."""
    for k in range(ENTRIES):
        top = max(table[0, k], table[1, k], table[2, k])
        for c in range(3):
            table[c, k] = max(top - np.float32(factor) * (top - table[c, k]), np.float32(0.0))


@njit
def plain_palette(table):
    """Grays from dark to light."""
    for c in range(3):
        for k in range(ENTRIES):
            table[c, k] = np.float32(30.0) + np.float32(195.0 / (ENTRIES - 1)) * np.float32(k)


@njit
def shaded(table, shade):
    """The same palette in the shade."""
    for c in range(3):
        for k in range(ENTRIES):
            shade[c, k] = _SHADOW * table[c, k]
