"""Branches filled with a texture: made brighter or darker where they would be too much like the background around them.

The rest of a texture's colors is left to chance, so that neither brightness nor color says what is a branch. Brightness is luma,
0.299 R + 0.587 G + 0.114 B, and its local means are those of square cells of about 1/16 of the image's side.
"""

import math

import numpy as np
from numba import njit

#: Gray levels between the local mean brightness of branches and background, at least, at a contrast of 1.
LEAST_DIFFERENCE = 80.0
#: Deviation of a texture's brightness within cells, at most: thin branches would be lost among stronger details.
MOST_DETAIL = 25.0
RED, GREEN, BLUE = 0.299, 0.587, 0.114
WHITE, BLACK = 255.0, 0.0


@njit
def cell_side(size):
    """Pixels per side of the cells of local means."""
    return max(4, size // 16)


@njit
def cell_means(texture, size):
    """Compute the mean brightness of every cell of a `Texture`; C = ⌈S / side⌉.

    Returns the mean of all pixels and the deviation of pixels from the means of their cells.
    """
    field, table, means = texture.clouds.field, texture.table, texture.means
    side, luma = cell_side(size), np.empty(256)
    for i in range(256):
        luma[i] = RED * table[0, i] + GREEN * table[1, i] + BLUE * table[2, i]
    means[:] = 0.0
    squares = 0.0
    for row in range(size):
        into = means[row // side]
        for column in range(size):
            level = luma[field[row, column]]
            into[column // side] += level
            squares += level * level
    total = 0.0
    for i in range(means.shape[0]):
        for j in range(means.shape[1]):
            pixels = min(side, size - i * side) * min(side, size - j * side)
            total += means[i, j]
            squares -= means[i, j] * means[i, j] / pixels
            means[i, j] /= pixels
    return total / (size * size), math.sqrt(max(squares, 0.0) / (size * size))


@njit
def limit_detail(texture, size):
    """Compute `cell_means`, and move the colors toward their mean if the deviation is above MOST_DETAIL; returns the mean."""
    field, table, means = texture.clouds.field, texture.table, texture.means
    mean, deviation = cell_means(texture, size)
    if deviation <= MOST_DETAIL:
        return mean
    share, often = MOST_DETAIL / deviation, np.zeros(256, np.int64)
    for row in range(size):
        for column in range(size):
            often[field[row, column]] += 1
    for channel in range(3):
        middle = 0.0
        for i in range(256):
            middle += often[i] * table[channel, i]
        middle /= size * size
        for i in range(256):
            table[channel, i] = middle + share * (table[channel, i] - middle)
    for i in range(means.shape[0]):
        for j in range(means.shape[1]):
            means[i, j] = mean + share * (means[i, j] - mean)
    return mean


@njit
def leave_room(end, ground):
    """Mix a background's colors with black or white, the other than `end`, so that LEAST_DIFFERENCE is free at this end."""
    table, means = ground.table, ground.means
    other, share = WHITE + BLACK - end, LEAST_DIFFERENCE / 255.0
    for channel in range(3):
        for i in range(256):
            table[channel, i] += share * (other - table[channel, i])
    for i in range(means.shape[0]):
        for j in range(means.shape[1]):
            means[i, j] += share * (other - means[i, j])


@njit
def shares_of_end(end, ground, branch):
    """In each cell, how much of `end` (WHITE or BLACK) the branches' colors need to differ from the background enough.

    ground, branch: float64[C, C], local means; the shares, 0 … 1, are written into branch.
    """
    for i in range(ground.shape[0]):
        for j in range(ground.shape[1]):
            here, share = branch[i, j], 0.0
            if end == WHITE:
                wanted = min(ground[i, j] + LEAST_DIFFERENCE, WHITE)
                if here < wanted:
                    share = (wanted - here) / (WHITE - here)
            else:
                wanted = max(ground[i, j] - LEAST_DIFFERENCE, BLACK)
                if here > wanted:
                    share = (here - wanted) / here
            branch[i, j] = share


@njit
def fill_layer(branch, end, alpha, layer):
    """Color the pixels of layer (float32[S, S, 3]) where alpha (float32[S, S]) is not 0.

    They get the texture's color, mixed with `end` by the shares in its means, interpolated between the middles of the cells.
    """
    field, table, shares, size = branch.clouds.field, branch.table, branch.means, alpha.shape[0]
    last, side = shares.shape[0] - 1, cell_side(size)
    for row in range(size):
        v = min(max((row + 0.5) / side - 0.5, 0.0), float(last))
        i = min(int(v), last - 1)
        above, below, down = shares[i], shares[i + 1], v - i
        for column in range(size):
            if alpha[row, column] > 0.0:
                u = min(max((column + 0.5) / side - 0.5, 0.0), float(last))
                j = min(int(u), last - 1)
                left, right = (
                    above[j] + down * (below[j] - above[j]),
                    above[j + 1] + down * (below[j + 1] - above[j + 1]),
                )
                share = left + (u - j) * (right - left)
                for channel in range(3):
                    color = table[channel, field[row, column]]
                    layer[row, column, channel] = color + share * (end - color)
