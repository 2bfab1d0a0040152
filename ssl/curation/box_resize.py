"""Resizing to the mean of the pixels that each new pixel covers: Pillow's filter BOX, in a third of its time."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.generators.compiling import kernel

_BITS = 22  # of the fraction of a weight


def box_resize(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """An image uint8[H, W, 3] as uint8[height, width, 3]: first its rows, then its columns are shrunk or stretched.

    Bit for bit what Pillow gives for one direction after the other. Which one Pillow takes first depends on its version, and
    hashes must not.
    """
    source = np.require(pixels, np.uint8, ["C", "W"])  # one type for the kernel
    found: NDArray[np.uint8] = _resize(source, *_windows(source.shape[1], width), *_windows(source.shape[0], height))
    return found


@lru_cache(64)
def _windows(size: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]:
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
    def resize(pixels, first_x, count_x, weight_x, first_y, count_y, weight_y):
        """uint8[h, w, 3]; sums of the pixels of a window times its weight, rounded to 8 bits in each direction."""
        _ = sources
        height, width = len(first_y), len(first_x)
        rows = pixels.reshape(len(pixels), -1)
        half, bits, one, two = np.uint32(1 << (_BITS - 1)), np.uint32(_BITS), np.uint64(1), np.uint64(2)
        narrow = np.empty((len(pixels), 3 * width), np.uint8)
        for y in range(len(pixels)):
            row, new = rows[y], narrow[y]
            for x in range(width):
                red, green, blue = np.uint32(0), np.uint32(0), np.uint32(0)
                at = np.uint64(3 * first_x[x])  # unsigned, as an index that may be negative costs a comparison
                for _ in range(count_x[x]):
                    red += np.uint32(row[at])
                    green += np.uint32(row[at + one])
                    blue += np.uint32(row[at + two])
                    at += np.uint64(3)
                at = np.uint64(3 * x)
                new[at] = (red * weight_x[x] + half) >> bits
                new[at + one] = (green * weight_x[x] + half) >> bits
                new[at + two] = (blue * weight_x[x] + half) >> bits
        found = np.empty((height, 3 * width), np.uint8)
        sums = np.empty(3 * width, np.uint32)
        for y in range(height):
            sums[:] = 0
            for line in range(first_y[y], first_y[y] + count_y[y]):
                row = narrow[line]
                for x in range(3 * width):
                    sums[x] += row[x]
            new, weight = found[y], weight_y[y]
            for x in range(3 * width):
                new[x] = (sums[x] * weight + half) >> bits
        return found.reshape(height, width, 3)

    return resize
