"""A 3 × 3 Gaussian blur of RGB rows in 16-bit integers, one direction after the other."""

from typing import NamedTuple

import numpy as np
from numba import njit

from .counter_rng import uniform64
from .elementary import exp_negative


@njit
def blur_weight(blur_key):
    """Outer weight, in 1/256, of a 3-tap Gaussian of σ ~ U(.5, 1) pixels; the middle one is 256 minus twice this."""
    sigma = 0.5 + 0.5 * uniform64(blur_key, np.uint64(0))
    outer = exp_negative(0.5 / (sigma * sigma))
    return int(256.0 * outer / (1.0 + 2.0 * outer) + 0.5)


@njit(inline="always")
def _weighted(before, here, after, side, middle):
    ends = np.uint16(before) + np.uint16(after)
    return np.uint8(np.uint16(np.uint16(here) * middle + np.uint16(ends) * side + np.uint16(128)) >> np.uint16(8))


# The weights are rows of equal numbers: reading them from memory lets the compiler use 16-bit vector instructions.
@njit
def blur_across(line, taps, out):
    """Blur an RGB row along itself: line (uint8[3 * S + 6], pixels from entry 3) to out (uint8[3 * S]).

    taps (uint16[2, 3 * S]): the outer and the middle weight, in 1/256, repeated.
    """
    for c in range(3):
        line[c] = line[3 + c]
        line[line.size - 3 + c] = line[line.size - 6 + c]
    side, middle = taps[0], taps[1]
    for j in range(np.uint64(out.size)):
        out[j] = _weighted(line[j], line[j + np.uint64(3)], line[j + np.uint64(6)], side[j], middle[j])


@njit
def blur_down(above, line, below, taps, out):
    """Blur three rows (uint8[M]) into the middle one; taps (uint16[2, M]) as in `blur_across`."""
    side, middle = taps[0], taps[1]
    for j in range(np.uint64(out.size)):
        out[j] = _weighted(above[j], line[j], below[j], side[j], middle[j])


class BlurSpace(NamedTuple):
    """Workspace, reused from image to image: a row with its borders, three rows blurred horizontally, and weights."""

    line: np.ndarray
    across: np.ndarray
    taps: np.ndarray


@njit
def blur_space(size):
    """A `BlurSpace` for images of `size` pixels a side."""
    width = 3 * size
    return BlurSpace(np.empty(width + 6, np.uint8), np.empty((3, width), np.uint8), np.empty((2, width), np.uint16))


def row_painter(compose):
    """Return a compiled paint(source, outer, space, image) that composes and blurs image (uint8[S, 3 * S]) row by row.

    compose(source, row, line), also compiled, writes a row into the first 3 * S bytes of line; `outer` is the blur's weight, 0
    for none; `space` comes from `blur_space(S)`. Row by row, the data stays in the L1 cache.
    """

    @njit
    def paint(source, outer, space, image):
        size = image.shape[0]
        if outer == 0:
            for row in range(size):
                compose(source, row, image[row])
            return
        line, across, taps = space
        taps[0] = outer
        taps[1] = 256 - 2 * outer
        compose(source, 0, line[3:])
        blur_across(line, taps, across[0])
        for row in range(size):
            following = min(row + 1, size - 1)
            if following > row:
                compose(source, following, line[3:])
                blur_across(line, taps, across[following % 3])
            blur_down(across[max(row - 1, 0) % 3], across[row % 3], across[following % 3], taps, image[row])

    return paint
