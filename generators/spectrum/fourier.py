"""Inverse Fourier transforms of LANES columns side by side, with twiddle factors from additions and multiplications only.

Radix 2 in Stockham's order (Cochran et al., "What is the fast Fourier transform?", 1967): each stage reads one buffer and
writes the other, so no bit reversal is needed, and the innermost loops read contiguous memory.
"""

import numpy as np
from numba import njit

from ..elementary import cos_sin

LANES = 16
#: Length of the table of the unit circle, and so of the longest transform.
TURN = 2048
_LANES, _HALF_TURN, _TWO = np.uint64(LANES), np.uint64(TURN // 2), np.uint64(2)


@njit
def unit_circle(circle):
    """Fill circle (float32[2, TURN]) with the cosines and sines of k / TURN turns."""
    for k in range(TURN):
        c, s = cos_sin(k / TURN)
        circle[0, k], circle[1, k] = np.float32(c), np.float32(s)


@njit
def _stage(source, target, block, twiddles, circle):
    """Joins pairs of transforms of length n / block / 2 … of rows `block` apart; n = 2 block twiddles."""
    real, imaginary, real_out, imaginary_out = source[0], source[1], target[0], target[1]
    run = np.uint64(block) * _LANES
    half, step = np.uint64(twiddles) * run, _HALF_TURN // np.uint64(twiddles)
    for j in range(np.uint64(twiddles)):
        c, s = circle[0, j * step], circle[1, j * step]
        low, out = j * run, _TWO * j * run
        high, out_high = low + half, out + run
        for k in range(run):
            a, b = real[low + k] - real[high + k], imaginary[low + k] - imaginary[high + k]
            real_out[out + k] = real[low + k] + real[high + k]
            imaginary_out[out + k] = imaginary[low + k] + imaginary[high + k]
            real_out[out_high + k] = a * c - b * s
            imaginary_out[out_high + k] = a * s + b * c


@njit
def inverse_columns(columns, spare, n, circle):
    """Σ_f Z[f] exp(2πi f y / n) for y < n, of LANES columns at once, without a factor; n is a power of two up to TURN.

    columns holds Z[f] of lane l at [0, f * LANES + l] (real part) and [1, …] (imaginary part); it and spare are
    float32[2, ≥ n * LANES]. Returns the one of the two that holds the result, in the same layout.
    """
    source, target = columns, spare
    block, twiddles = 1, n // 2
    while twiddles > 0:
        _stage(source, target, block, twiddles, circle)
        source, target = target, source
        block, twiddles = 2 * block, twiddles // 2
    return source
