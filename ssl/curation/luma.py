"""The luma of an image and what is counted in it: compiled, so that other threads read images meanwhile."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wildfern.generators.compiling import kernel


class Luma(NamedTuple):
    """The luma uint8[H, W] of an image (ITU-R 601, rounded), and exact sums, which no order of adding changes.

    - histogram: int64[256], the pixels of each luma.
    - laplacian, laplacian_squares: sums of the Laplacian (the four neighbors less four times the pixel) and of its square, of
      the (H - 2) (W - 2) inner pixels; 0 if there are none.
    """

    pixels: NDArray[np.uint8]
    histogram: NDArray[np.int64]
    laplacian: int
    laplacian_squares: int


def luma_of(pixels: NDArray[np.uint8]) -> Luma:
    """The luma of an image uint8[H, W, 3], bit for bit that of Pillow's mode L."""
    luma, histogram, laplacian, squares = _luma(np.require(pixels, np.uint8, ["C", "W"]))
    return Luma(luma, histogram, int(laplacian), int(squares))


def equal_neighbors(pixels: NDArray[np.uint8], step: int) -> tuple[int, int]:
    """How many pixels of uint8[H, W, 3] equal their right and their lower neighbor, and how many were examined.

    Those of every `step`-th row and column are examined, but for the last row and the last column.
    """
    equal, examined = _equal(np.require(pixels, np.uint8, ["C", "W"]), step)
    return int(equal), int(examined)


@kernel("the luma of images")
def _luma(sources: int) -> Any:
    def luma_and_sums(pixels):
        _ = sources
        height, width, _channels = pixels.shape
        luma = np.empty((height, width), np.uint8)
        rows = pixels.reshape(height, 3 * width)
        for y in range(height):
            row, new = rows[y], luma[y]
            for x in range(width):
                red, green, blue = np.uint32(row[3 * x]), np.uint32(row[3 * x + 1]), np.uint32(row[3 * x + 2])
                new[x] = (
                    red * np.uint32(19595) + green * np.uint32(38470) + blue * np.uint32(7471) + np.uint32(32768)
                ) >> np.uint32(16)
        histogram = np.zeros(256, np.int64)
        for value in luma.ravel():
            histogram[value] += 1
        total, squares = np.int64(0), np.int64(0)
        for y in range(1, height - 1):
            above, row, below = luma[y - 1], luma[y], luma[y + 1]
            of_row, squares_of_row = np.int32(0), np.int64(0)
            for x in range(1, width - 1):
                found = (
                    np.int32(above[x])
                    + np.int32(below[x])
                    + np.int32(row[x - 1])
                    + np.int32(row[x + 1])
                    - np.int32(4) * np.int32(row[x])
                )
                of_row += found
                squares_of_row += found * found
            total += of_row
            squares += squares_of_row
        return luma, histogram, total, squares

    return luma_and_sums


@kernel("the search for equal pixels")
def _equal(sources: int) -> Any:
    def equal_pixels(pixels, step):
        _ = sources
        height, width, _channels = pixels.shape
        rows = pixels.reshape(height, 3 * width)
        equal, examined, one, two, three = 0, 0, np.uint64(1), np.uint64(2), np.uint64(3)
        for y in range(0, height - 1, step):
            row, lower = rows[y], rows[y + 1]
            for x in range(0, width - 1, step):
                at = np.uint64(3 * x)  # unsigned, as an index that may be negative costs a comparison
                red, green, blue = row[at], row[at + one], row[at + two]
                equal += (
                    (red == row[at + three]) & (green == row[at + three + one]) & (blue == row[at + three + two])
                    & (red == lower[at]) & (green == lower[at + one]) & (blue == lower[at + two])
                )  # fmt: skip
            examined += (width - 2) // step + 1
        return equal, examined

    return equal_pixels
