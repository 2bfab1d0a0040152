"""What is computed from every pixel of an image, in one compiled call: other threads read images meanwhile."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wildfern.generators.compiling import kernel
from wildfern.ssl.curation.box_resize import resized, resized_gray, windows
from wildfern.ssl.curation.manifest import SMALL
from wildfern.ssl.curation.perceptual_hash import SIDE


class Examined(NamedTuple):
    """Of an image and of its `shrunk` version; sums are exact, so that no order of adding changes them.

    - luma: uint8[h, w] of the shrunk image (ITU-R 601, rounded as Pillow does). histogram: int64[256], its pixels of each level.
    - laplacian, laplacian_squares: sums of the Laplacian of the luma (the four neighbors less four times the pixel) and of its
      square, of the (h - 2) (w - 2) inner pixels; 0 if there are none.
    - hashed: uint8[32, 32], the luma as the perceptual hash needs it. small: uint8[16, 16, 3], the shrunk image.
    - equal, sampled: of every `step`-th row and column of the image but the last ones, the pixels that equal their right and
      their lower neighbor, and all.
    """

    luma: NDArray[np.uint8]
    histogram: NDArray[np.int64]
    laplacian: int
    laplacian_squares: int
    hashed: NDArray[np.uint8]
    small: NDArray[np.uint8]
    equal: int
    sampled: int


def examine(pixels: NDArray[np.uint8], shrunk: NDArray[np.uint8], step: int) -> Examined:
    """Examine an image uint8[H, W, 3] and a smaller version of it, uint8[h, w, 3]."""
    height, width = shrunk.shape[:2]
    luma, histogram, laplacian, squares, hashed, small, equal, sampled = _examine(
        *(np.require(one, np.uint8, ["C", "W"]) for one in (pixels, shrunk)),
        step,
        *(windows(side, target) for target in (SIDE, SMALL) for side in (height, width)),
    )
    return Examined(luma, histogram, int(laplacian), int(squares), hashed, small, int(equal), int(sampled))


@kernel("the examination of images")
def _examine(sources: int) -> Any:
    def examine(pixels, shrunk, step, hashed_rows, hashed_columns, small_rows, small_columns):
        _ = sources
        luma, histogram = _luma(shrunk)
        laplacian, squares = _laplacian(luma)
        hashed = resized_gray(luma, hashed_rows, hashed_columns)
        small = resized(shrunk, small_rows, small_columns)
        equal, sampled = _equal(pixels, step)
        return luma, histogram, laplacian, squares, hashed, small, equal, sampled

    return examine


@njit
def _luma(pixels):
    height, width, _channels = pixels.shape
    luma = np.empty((height, width), np.uint8)
    rows = pixels.reshape(height, 3 * width)
    for y in range(height):
        row, new = rows[y], luma[y]
        for x in range(width):
            red, green, blue = np.uint32(row[3 * x]), np.uint32(row[3 * x + 1]), np.uint32(row[3 * x + 2])
            weighed = red * np.uint32(19595) + green * np.uint32(38470) + blue * np.uint32(7471)
            new[x] = (weighed + np.uint32(32768)) >> np.uint32(16)
    histogram = np.zeros(256, np.int64)
    for value in luma.ravel():
        histogram[value] += 1
    return luma, histogram


@njit
def _laplacian(luma):
    total, squares = np.int64(0), np.int64(0)
    for y in range(1, luma.shape[0] - 1):
        above, row, below = luma[y - 1], luma[y], luma[y + 1]
        for x in range(1, luma.shape[1] - 1):
            around = np.int32(above[x]) + np.int32(below[x]) + np.int32(row[x - 1]) + np.int32(row[x + 1])
            found = around - np.int32(4) * np.int32(row[x])
            total += found
            squares += found * found
    return total, squares


@njit
def _equal(pixels, step):
    height, width, _channels = pixels.shape
    rows = pixels.reshape(height, 3 * width)
    equal, sampled, one, two, three = 0, 0, np.uint64(1), np.uint64(2), np.uint64(3)
    for y in range(0, height - 1, step):
        row, lower = rows[y], rows[y + 1]
        for x in range(0, width - 1, step):
            at = np.uint64(3 * x)  # unsigned, as an index that may be negative costs a comparison
            red, green, blue = row[at], row[at + one], row[at + two]
            equal += (
                (red == row[at + three]) & (green == row[at + three + one]) & (blue == row[at + three + two])
                & (red == lower[at]) & (green == lower[at + one]) & (blue == lower[at + two])
            )  # fmt: skip
        sampled += (width - 2) // step + 1
    return equal, sampled
