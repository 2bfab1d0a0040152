"""A mask of an image: k-means of its colors with k = 2, in whole numbers, so that every machine finds the same mask."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wildfern.generators.compiling import kernel
from wildfern.generators.counter_rng import integers

ITERATIONS = 10
REDUCED = (
    64  # centers are found on an image reduced by a whole number, whose shorter side has 64 to 127 pixels if it can
)
FRACTION = 16  # centers are multiples of a sixteenth of a level


def kmeans_mask(image: NDArray[np.uint8], key: np.uint64) -> NDArray[np.bool_]:
    """bool[H, W]: the pixels of uint8[H, W, C] that are nearer to the second of two mean colors.

    Lloyd's algorithm on block means of the image, from a pixel that `key` chooses and the one farthest from it, for at most
    ITERATIONS. Among equally near centers the first is taken. An image of one color has an empty mask.
    """
    height, width, channels = image.shape
    block = max(1, min(height, width) // REDUCED)
    pixels = np.empty((height // block * (width // block), channels), np.int64)
    start = integers(np.array([key], np.uint64), 1, len(pixels))[0, 0]
    mask = np.empty((height, width), np.bool_)
    _split_colors(np.ascontiguousarray(image), block, start, pixels, mask)
    return mask


@njit
def _reduce(image, block, pixels):
    """Means of blocks, rounded, into pixels; what does not fill a block at the right and below is left out."""
    rows, columns, area = image.shape[0] // block, image.shape[1] // block, block * block
    for row in range(rows):
        for column in range(columns):
            for c in range(image.shape[2]):
                total = np.int64(area // 2)
                for y in range(row * block, (row + 1) * block):
                    for x in range(column * block, (column + 1) * block):
                        total += image[y, x, c]
                pixels[row * columns + column, c] = total // area


@njit
def _farthest(pixels, start):
    """The first of the pixels that are farthest from pixels[start]."""
    found, largest = np.int64(start), np.int64(0)
    for i in range(pixels.shape[0]):
        distance = np.int64(0)
        for c in range(pixels.shape[1]):
            distance += (pixels[i, c] - pixels[start, c]) ** 2
        if distance > largest:
            found, largest = i, distance
    return found


@njit
def _threshold(centers):
    """|second|² − |first|² of int64[2, C]: a pixel x is nearer to the second if 2 x · (second − first) is greater."""
    threshold = np.int64(0)
    for c in range(centers.shape[1]):
        threshold += centers[1, c] * centers[1, c] - centers[0, c] * centers[0, c]
    return threshold


@kernel("masks by k-means")
def _split_colors(sources: int):
    """Find the mask of an image."""

    def split(image, block, start, pixels, mask):
        """The mask (bool[H, W]) of image (uint8[H, W, C]); pixels (int64[N, C]) is workspace for its block means."""
        _ = sources
        count, channels = pixels.shape
        _reduce(image, block, pixels)
        second = _farthest(pixels, start)
        centers, sums = np.empty((2, channels), np.int64), np.zeros((2, channels), np.int64)
        for c in range(channels):
            centers[0, c], centers[1, c] = FRACTION * pixels[start, c], FRACTION * pixels[second, c]
        for _iteration in range(ITERATIONS):
            threshold, inside = _threshold(centers), np.int64(0)
            sums[:] = 0
            for i in range(count):
                along = np.int64(0)
                for c in range(channels):
                    along += pixels[i, c] * (centers[1, c] - centers[0, c])
                side = 1 if 2 * FRACTION * along > threshold else 0
                inside += side
                for c in range(channels):
                    sums[side, c] += pixels[i, c]
            if inside == 0 or inside == count:
                break
            for c in range(channels):
                centers[0, c] = (FRACTION * sums[0, c] + (count - inside) // 2) // (count - inside)
                centers[1, c] = (FRACTION * sums[1, c] + inside // 2) // inside
        threshold = _threshold(centers)
        for y in range(image.shape[0]):
            for x in range(image.shape[1]):
                along = np.int64(0)
                for c in range(channels):
                    along += np.int64(image[y, x, c]) * (centers[1, c] - centers[0, c])
                mask[y, x] = 2 * FRACTION * along > threshold

    return split
