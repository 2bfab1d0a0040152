"""Smooth random fields by the diamond-square algorithm (Fournier, Fussell & Carpenter, 1982), on a torus.

Amplitudes after Anderson & Farrell (2022): the noise of level k is 0.5 exp(decay (1 - k)), decay ~ U(.4, .8).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from .counter_rng import draw64, uniform64
from .elementary import exp_negative
from .xorshift import seed_lanes, xorshift32

_ZERO, _ONE, _TWO = np.uint64(0), np.uint64(1), np.uint64(2)
_TEN_BITS, _S10, _S20 = np.uint32(1023), np.uint32(10), np.uint32(20)
_QUARTER, _MIDDLE = np.float32(0.25), np.float32(511.5)


def levels_for(size: int) -> int:
    """Number of doublings from one cell to at least `size` cells per side; at least 1."""
    return max(1, (size - 1).bit_length())


class FieldSpace(NamedTuple):
    """Workspace, reused from field to field: its bytes, two grids, random states and rows."""

    field: np.ndarray  # uint8[M, M], M the even number not below the size
    grid: np.ndarray
    other: np.ndarray
    states: np.ndarray
    rows: np.ndarray


@njit
def field_space(size, levels):
    """A `FieldSpace` for fields of `size` pixels a side, all 0."""
    half = 2 ** (levels - 1)
    even = 2 * ((size + 1) // 2)
    return FieldSpace(
        np.zeros((even, even), np.uint8),
        np.empty(half * (half + 1), np.float32),
        np.empty(half * (half + 1), np.float32),
        np.empty(half, np.uint32),
        np.empty((4, half + 1), np.float32),
    )


@njit
def _refine_row(above, below, previous, current, side, states, amplitude, m, columns):
    """One row of cells of an m-grid: centers into current[1:], edge points into side[0] (right) and side[1] (down).

    `above` and `below` are the corner rows with one wrapped column; previous[j + 1] and current[j + 1] hold the centers of
    columns j of the last and of this row, with column -1 (that is m - 1) in front. Only centers if `columns` is 0.
    """
    step = amplitude / _MIDDLE
    for j in range(m):
        states[j] = xorshift32(states[j])
        noise = np.float32(np.int32(states[j] & _TEN_BITS)) - _MIDDLE
        total = (above[j] + above[j + _ONE]) + (below[j] + below[j + _ONE])
        current[j + _ONE] = total * _QUARTER + noise * step
    current[0] = current[m]
    right, down = side[0], side[1]
    for j in range(columns):
        noise = np.float32(np.int32((states[j] >> _S10) & _TEN_BITS)) - _MIDDLE
        total = (above[j] + above[j + _ONE]) + (previous[j + _ONE] + current[j + _ONE])
        right[j] = total * _QUARTER + noise * step
    for j in range(columns):
        noise = np.float32(np.int32((states[j] >> _S20) & _TEN_BITS)) - _MIDDLE
        total = (above[j] + below[j]) + (current[j] + current[j + _ONE])
        down[j] = total * _QUARTER + noise * step


@njit
def _interleave(even, odd, columns, out):
    """out[2 j] = even[j], out[2 j + 1] = odd[j]."""
    for j in range(columns):
        out[_TWO * j] = even[j]
        out[_TWO * j + _ONE] = odd[j]


@njit
def _interleave_bytes(even, odd, columns, low, scale, out):
    """The same with values mapped to 0 … 255 by (v - low) * scale, clipped."""
    top, bottom = np.float32(255.0), np.float32(0.0)
    for j in range(columns):
        a, b = (even[j] - low) * scale, (odd[j] - low) * scale
        a = bottom if a < bottom else a
        b = bottom if b < bottom else b
        out[_TWO * j] = np.uint8(np.int32(top if a > top else a))
        out[_TWO * j + _ONE] = np.uint8(np.int32(top if b > top else b))


@njit
def _extremes(grid, m, width, low, high):
    """Least and greatest of m rows of a grid, by columns first, which vectorizes; low, high: float32[≥ m] workspace."""
    columns = np.uint64(m)
    for j in range(columns):
        low[j] = high[j] = grid[j]
    for i in range(1, m):
        row = grid[i * width : i * width + m]
        for j in range(columns):
            value = row[j]
            low[j] = value if value < low[j] else low[j]
            high[j] = value if value > high[j] else high[j]
    least, greatest = low[0], high[0]
    for j in range(columns):
        least, greatest = min(least, low[j]), max(greatest, high[j])
    return least, greatest


@njit
def lanes_key(field_key):
    """The key of the random states of a field's columns."""
    return draw64(field_key, _ONE)


@njit
def amplitude_ratio(field_key):
    """Ratio of the noise amplitudes of consecutive levels: exp(-decay), float32."""
    return np.float32(exp_negative(0.4 + 0.4 * uniform64(field_key, _ZERO)))


@njit
def byte_field(field_key, size, levels, space):
    """Fill the field of a `FieldSpace` for this size with a smooth random field that spans 0 … 255."""
    field, grid, other, states, rows = space
    seed_lanes(lanes_key(field_key), states)
    ratio = amplitude_ratio(field_key)
    amplitude = np.float32(0.5)
    grid[0] = grid[1] = np.float32(0.0)
    m = np.int64(1)  # a literal 1 would be compiled separately
    for level in range(1, levels + 1):
        last = level == levels
        used = (size + 1) // 2 if last else m
        width, wide = m + 1, 2 * m + 1
        if last:
            low, high = _extremes(grid, m, width, rows[2], rows[3])
            scale = np.float32(255.99) / (high - low) if high > low else np.float32(0.0)
        columns, um = np.uint64(used), np.uint64(m)
        previous, current = rows[0], rows[1]
        # Row 0 needs centers above it; they are computed again rather than stored from the last row.
        above, below = grid[(m - 1) * width : m * width], grid[0:width]
        _refine_row(above, below, current, previous, rows[2:4], states, amplitude, um, _ZERO)
        for i in range(used):
            above = grid[i * width : (i + 1) * width]
            following = i + 1 if i + 1 < m else 0
            below = grid[following * width : (following + 1) * width]
            _refine_row(above, below, previous, current, rows[2:4], states, amplitude, um, columns)
            if last:
                _interleave_bytes(above, rows[2], columns, low, scale, field[2 * i])
                _interleave_bytes(rows[3], current[1:], columns, low, scale, field[2 * i + 1])
            else:
                start = 2 * i * wide
                _interleave(above, rows[2], columns, other[start : start + wide])
                other[start + 2 * m] = other[start]
                start += wide
                _interleave(rows[3], current[1:], columns, other[start : start + wide])
                other[start + 2 * m] = other[start]
            previous, current = current, previous
        grid, other = other, grid
        amplitude *= ratio
        m *= 2
