"""Rejects images that are flat or noise, by the spread of levels and the correlation of neighboring pixels."""

import numpy as np
from numba import njit

GOOD, FLAT, NOISE = range(3)


@njit
def judge(gray, counts, spread, most, correlation):
    """GOOD, FLAT or NOISE for an image uint8[S, S]; counts: int64[16] workspace.

    FLAT: the standard deviation is below `spread`, or more than the share `most` of the pixels lie in one of the 16
    ranges of 16 levels. NOISE: horizontally or vertically adjacent pixels correlate less than `correlation`.
    """
    size = gray.shape[0]
    for k in range(16):
        counts[k] = 0
    total, square, beside, below = 0, 0, 0, 0
    for y in range(size):
        row, following = gray[y], gray[min(y + 1, size - 1)]
        for x in range(size):
            v = np.int64(row[x])
            counts[v >> 4] += 1
            total += v
            square += v * v
            across, down = v - np.int64(row[min(x + 1, size - 1)]), v - np.int64(following[x])
            beside += across * across
            below += down * down
    n = size * size
    fullest = 0
    for k in range(16):
        fullest = max(fullest, counts[k])
    variance = square / n - (total / n) * (total / n)
    if variance < spread * spread or fullest > most * n:
        return FLAT
    # Half the mean squared difference is the variance that neighbors do not share.
    pairs = 2.0 * size * (size - 1) * variance
    if max(beside, below) > (1.0 - correlation) * pairs:
        return NOISE
    return GOOD
