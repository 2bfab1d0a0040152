"""Resizing to the mean of the pixels that each new pixel covers: Pillow's filter BOX, in a third of its time."""

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wildfern.generators.compiling import kernel

Windows = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]
_BITS = 22  # of the fraction of a weight


def box_resize(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """An image uint8[H, W, 3] as uint8[height, width, 3]: first its columns, then its rows are shrunk or stretched.

    Bit for bit what Pillow gives for one direction after the other. Which one Pillow takes first depends on its version, and
    hashes must not.
    """
    source = np.require(pixels, np.uint8, ["C", "W"])  # one type for the kernel
    found: NDArray[np.uint8] = _resize(source, windows(len(source), height), windows(source.shape[1], width))
    return found


@lru_cache(64)
def windows(size: int, target: int) -> Windows:
    """For each of `target` new pixels of a line of `size`: the first pixel that it covers, how many, and their weight."""
    scale = size / target
    centers, reach = (np.arange(target) + 0.5) * scale, max(scale, 1.0) / 2
    first = np.maximum(0, np.trunc(centers - reach + 0.5)).astype(np.int64)
    last = np.minimum(size, np.trunc(centers + reach + 0.5)).astype(np.int64) - 1
    # Rounding decides on a pixel whose center is at the edge of a window, so that it has to be the same rounding.
    first += (first - centers + 0.5) * (0.5 / reach) <= -0.5
    last -= (last - centers + 0.5) * (0.5 / reach) > 0.5
    count = last - first + 1
    return first, count, np.floor(2**_BITS * (1 / count) + 0.5).astype(np.uint32)


@kernel("the shrinking of images")
def _resize(sources: int) -> Any:
    def resize(pixels, of_rows, of_columns):
        _ = sources
        return resized(pixels, of_rows, of_columns)

    return resize


# These sum the pixels of a window times their weight, rounded to 8 bits in each direction.


@njit
def resized(pixels, of_rows, of_columns):
    """uint8[h, w, 3] -> uint8[height, width, 3], for the windows of its rows and of its columns."""
    rows = shortened(pixels.reshape(len(pixels), -1), of_rows)
    first, count, weight = of_columns
    width = len(first)
    half, bits, one, two = np.uint32(1 << (_BITS - 1)), np.uint32(_BITS), np.uint64(1), np.uint64(2)
    found = np.empty((len(rows), 3 * width), np.uint8)
    for y in range(len(rows)):
        row, new = rows[y], found[y]
        for x in range(width):
            red, green, blue = np.uint32(0), np.uint32(0), np.uint32(0)
            at = np.uint64(3 * first[x])  # unsigned, as an index that may be negative costs a comparison
            for _ in range(count[x]):
                red += np.uint32(row[at])
                green += np.uint32(row[at + one])
                blue += np.uint32(row[at + two])
                at += np.uint64(3)
            at = np.uint64(3 * x)
            new[at] = (red * weight[x] + half) >> bits
            new[at + one] = (green * weight[x] + half) >> bits
            new[at + two] = (blue * weight[x] + half) >> bits
    return found.reshape(len(rows), width, 3)


@njit
def resized_gray(pixels, of_rows, of_columns):
    """uint8[h, w] -> uint8[height, width], for the windows of its rows and of its columns."""
    rows = shortened(pixels, of_rows)
    first, count, weight = of_columns
    half, bits = np.uint32(1 << (_BITS - 1)), np.uint32(_BITS)
    found = np.empty((len(rows), len(first)), np.uint8)
    for y in range(len(rows)):
        row, new = rows[y], found[y]
        for x in range(len(first)):
            total, at = np.uint32(0), np.uint64(first[x])
            for _ in range(count[x]):
                total += np.uint32(row[at])
                at += np.uint64(1)
            new[x] = (total * weight[x] + half) >> bits
    return found


@njit
def shortened(rows, windows):
    """uint8[h, values] -> uint8[height, values]."""
    first, count, weight = windows
    half, bits = np.uint32(1 << (_BITS - 1)), np.uint32(_BITS)
    found = np.empty((len(first), rows.shape[1]), np.uint8)
    sums = np.empty(rows.shape[1], np.uint32)
    for y in range(len(first)):
        sums[:] = 0
        for line in range(first[y], first[y] + count[y]):
            row = rows[line]
            for x in range(len(sums)):
                sums[x] += row[x]
        new = found[y]
        for x in range(len(sums)):
            new[x] = (sums[x] * weight[y] + half) >> bits
    return found
