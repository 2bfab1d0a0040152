"""A mask of an image: k-means of its colors with k = 2, in whole numbers, so that every machine finds the same mask."""

import numpy as np
from numpy.typing import NDArray

from wildfern.generators.counter_rng import integers

ITERATIONS = 10
REDUCED = 64  # pixels: centers are found on an image whose sides have between 64 and 128, unless it is smaller
FRACTION = 16  # centers are multiples of a sixteenth of a level


def kmeans_mask(image: NDArray[np.uint8], key: np.uint64) -> NDArray[np.bool_]:
    """bool[H, W]: the pixels of uint8[H, W, C] that are nearer to the second of two mean colors.

    Lloyd's algorithm on block means of the image, from a pixel that `key` chooses and the one farthest from it, for at most
    ITERATIONS. Among equally near centers the first is taken. An image of one color has an empty mask.
    """
    pixels = _reduced(image)
    start = pixels[integers(np.array([key], np.uint64), 1, len(pixels))[0, 0]]
    farthest = pixels[np.argmax(((pixels - start) ** 2).sum(axis=1))]
    first, second = start * FRACTION, farthest * FRACTION
    for _ in range(ITERATIONS):
        inside = _nearer_to_second(pixels.T, first, second)
        count = int(inside.sum())
        if count in (0, len(pixels)):
            break
        total, part = pixels.sum(axis=0), pixels[inside].sum(axis=0)
        means = _rounded(total - part, len(pixels) - count), _rounded(part, count)
        if (means[0] == first).all() and (means[1] == second).all():
            break
        first, second = means
    return _nearer_to_second(np.moveaxis(image, 2, 0).astype(np.int64), first, second)


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64[N, C]: means of square blocks, rounded; what does not fill a block at the right and below is left out."""
    height, width, channels = image.shape
    block = max(1, min(height, width) // REDUCED)
    rows, columns = height // block, width // block
    blocks = image[: rows * block, : columns * block].reshape(rows, block, columns, block, channels)
    sums = blocks.sum(axis=(1, 3), dtype=np.int64)
    return ((sums + block * block // 2) // (block * block)).reshape(-1, channels)


def _rounded(total: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return (FRACTION * total + count // 2) // count


def _nearer_to_second(planes: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each pixel x of int64[C, ...]: |x − second|² < |x − first|², as 2 x · (second − first) > |second|² − |first|²."""
    along = np.zeros(planes.shape[1:], np.int64)
    for plane, step in zip(planes, second - first, strict=True):
        along += plane * step
    return 2 * FRACTION * along > int((second**2).sum() - (first**2).sum())
