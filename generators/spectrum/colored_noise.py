"""Gaussian random fields whose amplitude spectrum is 1 / (|fx|^a + |fy|^b), by an inverse Fourier transform.

The spectrum is that of Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021; frequencies are whole cycles
per grid. Z(f) is a complex normal number times the amplitude, drawn independently for every f: the real and the imaginary part of
its transform are then two independent real fields of that spectrum.
"""

import math

import numpy as np
from numba import njit

from ..counter_rng import draw64
from ..elementary import log, power
from .fourier import LANES, TURN, inverse_columns

#: Length of the table of radii, a power of two.
RADII = 1024
_LANES, _TURN_BITS, _RADIUS_BITS = np.uint64(LANES), np.uint64(TURN - 1), np.uint64(RADII - 1)
_S16 = np.uint64(16)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


def grid_for(size: int) -> int:
    """Side of the grid of the transform: the power of two not below `size` or LANES."""
    return max(LANES, 1 << (size - 1).bit_length())


@njit
def normal_radii(radii):
    """Fill radii (float32[RADII]) with quantiles of the modulus of a complex normal number (Box & Muller, 1958)."""
    for k in range(RADII):
        radii[k] = np.float32(math.sqrt(-2.0 * log((k + 0.5) / RADII)))


@njit
def _powers(exponent, n, table):
    """table[k] = f^exponent for frequency index k of n, f = min(k, n - k)."""
    for k in range(n):
        table[k] = np.float32(power(float(min(k, n - k)), exponent))


@njit(error_model="numpy")
def _coefficients(field_key, first, n, across, down, circle, radii, columns):
    """Z(fx, fy) for the LANES values of fy from `first` on and all fx."""
    real, imaginary = columns[0], columns[1]
    for fx in range(np.uint64(n)):
        row = fx * _LANES
        for lane in range(_LANES):
            fy = np.uint64(first) + lane
            bits = draw64(field_key, fx * np.uint64(n) + fy)
            weight = across[fx] + down[fy]
            modulus = radii[(bits >> _S16) & _RADIUS_BITS] / (weight if weight > _ZERO else _ONE)
            real[row + lane] = modulus * circle[0, bits & _TURN_BITS]
            imaginary[row + lane] = modulus * circle[1, bits & _TURN_BITS]
    if first == 0:
        real[0] = imaginary[0] = _ZERO


@njit
def _standardize(field, total, square):
    """Standardize a field with this sum and sum of squares to mean 0 and standard deviation 1."""
    mean = total / field.size
    deviation = math.sqrt(max(square / field.size - mean * mean, 1e-30))
    shift, scale = np.float32(mean), np.float32(1.0 / deviation)
    for i in range(field.size):
        field[i] = (field[i] - shift) * scale


@njit
def noise_fields(field_key, a, b, n, size, circle, radii, powers, columns, spare, half_done, fields):
    """Two independent fields into fields (float32[2, size * size]), cropped from a torus of n × n, mean 0 and deviation 1.

    circle, radii: tables of `unit_circle` and `normal_radii`; powers: float32[2, n], columns, spare:
    float32[2, n * LANES] and half_done: float32[2, n * size] are workspace.
    """
    _powers(a, n, powers[0])
    _powers(b, n, powers[1])
    # Over fx first, for LANES values of fy at a time: half_done[fy, x]. Then over fy, for LANES values of x.
    for first in range(0, n, LANES):
        _coefficients(field_key, first, n, powers[0], powers[1], circle, radii, columns)
        done = inverse_columns(columns, spare, n, circle)
        for part in range(2):
            column, rows = done[part], half_done[part]
            for lane in range(LANES):
                row = (first + lane) * size
                for x in range(size):
                    rows[row + x] = column[x * LANES + lane]
    sums, squares = np.zeros((2, LANES)), np.zeros((2, LANES))
    for first in range(0, size, LANES):
        width = np.uint64(min(LANES, size - first))
        for part in range(2):
            column, rows = columns[part], half_done[part]
            for fy in range(n):
                here, there = np.uint64(fy * LANES), np.uint64(fy * size + first)
                for lane in range(width):
                    column[here + lane] = rows[there + lane]
        done = inverse_columns(columns, spare, n, circle)
        for part in range(2):
            column, field, total, square = done[part], fields[part], sums[part], squares[part]
            for y in range(size):
                here, there = np.uint64(y * LANES), np.uint64(y * size + first)
                for lane in range(width):
                    value = column[here + lane]
                    field[there + lane] = value
                    total[lane] += np.float64(value)
                    square[lane] += np.float64(value) * np.float64(value)
    for part in range(2):
        _standardize(fields[part], sums[part].sum(), squares[part].sum())
