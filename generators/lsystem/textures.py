"""Random textures: a field of one of several kinds, seen through a random gradient of colors.

No kind has single thin lines, such as the walls between cells or the ridges of noise: they would be branches without a mask.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from ..counter_rng import draw64
from ..diamond_square import FieldSpace, byte_field, field_space
from ..elementary import cos_sin, drawn, folded, power
from ..elementary32 import sin_turns
from ..texture.lattice_noise import blocks, cells, fractal_sum

KINDS = ("clouds", "noise", "stripes", "blocks", "cells")
CLOUDS, NOISE, STRIPES, BLOCKS, CELLS = range(5)
#: Cycles or cells per side of the image. The highest also leaves SHORTEST pixels for each.
LOWEST, HIGHEST, SHORTEST = 2.0, 24.0, 5.0
MOST_OCTAVES, MOST_WAVES = 6, 3
#: Colors of a gradient.
KNOTS = 4

_COLORS, _CLOUDS, _SHAPE = range(3)
_S32 = np.uint64(32)
_0, _HALF, _BYTES = np.float32(0.0), np.float32(0.5), np.float32(255.99)


class Texture(NamedTuple):
    """A texture: bytes in the field of `clouds`, their colors, and the mean brightness of its cells (see `cell_means`)."""

    clouds: FieldSpace
    table: np.ndarray  # float32[3, 256], RGB, 0 … 255
    means: np.ndarray  # float64[C, C]


@njit
def empty_texture(size, levels, cells):
    """A `Texture` for images of `size` pixels and `cells` cells a side, to be drawn."""
    return Texture(field_space(size, levels), np.empty((3, 256), np.float32), np.empty((cells, cells)))


class Scratch(NamedTuple):
    """Workspace, reused from texture to texture."""

    values: np.ndarray  # float32[S, S]
    rows: np.ndarray  # float32[6, S]: two coordinates, then what `cells` needs


@njit
def scratch_for(size):
    """The `Scratch` for textures of `size` pixels a side."""
    return Scratch(np.empty((size, size), np.float32), np.empty((6, size), np.float32))


@njit
def frequency_between(u, size):
    """Log-uniform between LOWEST and the highest frequency at this size; u in [0, 1)."""
    return LOWEST * power(max(min(HIGHEST, size / SHORTEST) / LOWEST, 1.0), u)


@njit
def _salt(key, draw):
    return np.uint32(draw64(key, np.uint64(draw)) >> _S32)


@njit
def place_row(shape_key, row, size, x, y, spare):
    """Coordinates, in sides of the image, of a row of pixels: turned, stretched, and in half of the textures warped.

    x, y: float32[S]; spare: float32[S], workspace. Turned by draw 0, x stretched by 1 … 2 and y pressed as much (draw 1), moved
    (2, 3). If draw 4 is below ½, both move by up to draw 5 × 0.15 / f more, by value noise of frequency f, 1 … 4 (draw 6).
    """
    c, s = cos_sin(drawn(shape_key, 0))
    stretch = 1.0 + drawn(shape_key, 1)
    across, down = (row + 0.5) * stretch * s / size, (row + 0.5) * c / (stretch * size)
    left, top = across + 8.0 * drawn(shape_key, 2), down + 8.0 * drawn(shape_key, 3)
    step_x, step_y = stretch * c / size, -s / (stretch * size)
    for k in range(np.uint64(size)):
        column = np.float64(np.int64(k)) + 0.5
        x[k], y[k] = np.float32(left + step_x * column), np.float32(top + step_y * column)
    if drawn(shape_key, 4) < 0.5:
        frequency = np.float32(1.0 + 3.0 * drawn(shape_key, 6))
        reach = np.float32(0.3 * drawn(shape_key, 5)) / frequency
        blocks(x, y, frequency, True, _salt(shape_key, 7), spare)
        for k in range(np.uint64(size)):
            x[k] += reach * (spare[k] - _HALF)
        blocks(x, y, frequency, True, _salt(shape_key, 8), spare)
        for k in range(np.uint64(size)):
            y[k] += reach * (spare[k] - _HALF)


@njit
def _stripes(shape_key, frequency, size, x, y, out):
    """Sum of one to three sinusoids of random directions; the frequency of the later ones is drawn for each."""
    for k in range(np.uint64(x.size)):
        out[k] = _0
    for wave in range(1 + int(MOST_WAVES * drawn(shape_key, 11))):
        c, s = cos_sin(drawn(shape_key, 20 + wave))
        here = frequency if wave == 0 else frequency_between(drawn(shape_key, 23 + wave), size)
        along, across, phase = np.float32(here * c), np.float32(here * s), np.float32(drawn(shape_key, 26 + wave))
        weight = np.float32(1.0 if wave == 0 else 0.2 + 0.8 * drawn(shape_key, 29 + wave))
        for k in range(np.uint64(x.size)):
            out[k] += weight * sin_turns(along * x[k] + across * y[k] + phase)


@njit
def _octaves(frequency, size):
    """As many as leave two pixels to a cycle of the last, at most MOST_OCTAVES."""
    count = 1
    while count < MOST_OCTAVES and frequency * 2**count <= 0.5 * size:
        count += 1
    return count


@njit
def texture_row(kind, shape_key, size, x, y, scratch, out):
    """The values (float32[S]) of one row of pixels at x, y, for every kind but clouds; they span any range.

    Of the shape's draws, 10 is the frequency. 11: of noise, how its amplitude falls with each octave, 0.3 … 0.9, so that its
    spectrum has a random exponent; soft blocks; flat tones or the distance to the cells' points. 12: how disordered these are.
    scratch: float32[4, S].
    """
    u, choice, salt = drawn(shape_key, 10), drawn(shape_key, 11), _salt(shape_key, 9)
    if kind == NOISE:
        frequency = frequency_between(0.5 * u, size)
        gain = np.float32(0.3 + 0.6 * choice)
        fractal_sum(x, y, np.float32(frequency), _octaves(frequency, size), gain, 0, salt, out)
    elif kind == STRIPES:
        _stripes(shape_key, frequency_between(u, size), size, x, y, out)
    elif kind == BLOCKS:
        blocks(x, y, np.float32(frequency_between(u, size)), choice < 0.5, salt, out)
    else:
        disorder = np.float32(0.4 + 0.6 * drawn(shape_key, 12))
        measure = 0 if choice < 0.5 else 2
        cells(x, y, np.float32(frequency_between(u, size)), disorder, measure, salt, scratch, out)


@njit
def draw_field(texture_key, size, levels, clouds, scratch):
    """Fill the field of `clouds` (a `FieldSpace`) with values that span 0 … 255; their kind is draw 0. Returns the kind."""
    kind = int(len(KINDS) * drawn(texture_key, 0))
    if kind == CLOUDS:
        byte_field(folded(texture_key, _CLOUDS), size, levels, clouds)
        return kind
    shape_key, values, rows = folded(texture_key, _SHAPE), scratch.values, scratch.rows
    x, y, spare = rows[0], rows[1], rows[2:]
    least, greatest = np.float32(np.inf), np.float32(-np.inf)
    for row in range(size):
        place_row(shape_key, row, size, x, y, spare[0])
        texture_row(kind, shape_key, size, x, y, spare, values[row])
        for value in values[row]:
            least, greatest = min(least, value), max(greatest, value)
    scale = _BYTES / (greatest - least) if greatest > least else _0
    for row in range(size):
        line, field = values[row], clouds.field[row]
        for k in range(np.uint64(size)):
            field[k] = np.uint8(np.int32((line[k] - least) * scale))
    return kind


@njit
def draw_colors(texture_key, table):
    """Fill table (float32[3, 256]) with a gradient through KNOTS random colors, 0 … 255, from dark to bright or back.

    Of the draws of its key: 0: in three of ten gradients all colors are grays; else 3: how far channels differ, up to 90.
    1: brightness in the middle. 2: colors are brighter or darker than it by up to 20 … 120. 4: how much of the field's range, at
    both ends, has the outer colors; below ½ of draw 24 the field's high values are the dark ones.
    """
    key = folded(texture_key, _COLORS)
    level, spread = 255.0 * drawn(key, 1), 20.0 + 100.0 * drawn(key, 2)
    tint = 0.0 if drawn(key, 0) < 0.3 else 90.0 * drawn(key, 3)
    steep = 1.0 + 2.0 * drawn(key, 4)
    rise = -spread if drawn(key, 24) < 0.5 else spread
    knots = np.empty(KNOTS)
    for channel in range(3):
        base = level + tint * (2.0 * drawn(key, 5 + channel) - 1.0)
        for knot in range(KNOTS):
            height = 2.0 * (knot + drawn(key, 8 + knot)) / KNOTS - 1.0
            own = 0.5 * tint * (2.0 * drawn(key, 12 + 3 * knot + channel) - 1.0)
            knots[knot] = min(max(base + rise * height + own, 0.0), 255.0)
        for i in range(256):
            place = min(max(steep * (i / 255.0 - 0.5) + 0.5, 0.0), 1.0) * (KNOTS - 1)
            before = min(int(place), KNOTS - 2)
            table[channel, i] = knots[before] + (place - before) * (knots[before + 1] - knots[before])


@njit
def draw_texture(texture_key, size, levels, texture, scratch):
    """Draw the bytes and the colors of a `Texture`; levels: `levels_for(size)`."""
    draw_field(texture_key, size, levels, texture.clouds, scratch)
    draw_colors(texture_key, texture.table)
