"""Pairs of images whose perceptual hashes differ in a few bits and whose small versions look the same."""

from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wildfern.generators.compiling import kernel
from wildfern.ssl.curation.manifest import CurationError

MOST_BITS = 8
MOST_PAIRS = 50_000_000


class TooManyPairs(CurationError):
    """More pairs than can be compared."""


def hash_pairs(hashes: NDArray[np.uint64], bits: int, others: NDArray[np.uint64] | None = None) -> NDArray[np.int64]:
    """Pairs (i, j) int64[P, 2] of 64-bit hashes that differ in at most `bits` (0 to 8) bits, sorted.

    With `others`, i is of `hashes` and j of `others`; without, i < j. Two hashes that differ in b bits agree in one of b + 1
    parts of their bits, so only hashes with an equal part are compared. Raises TooManyPairs for more than 50 million pairs.
    """
    if not 0 <= bits <= MOST_BITS:
        raise CurationError(f"bits must be 0 to {MOST_BITS}, got {bits}")
    joined = np.concatenate([np.asarray(part, np.uint64) for part in (hashes, others) if part is not None])
    split = -1 if others is None else len(hashes)
    edges = np.linspace(0, 64, bits + 2).astype(np.int64)
    masks = np.array([((1 << int(high)) - 1) ^ ((1 << int(low)) - 1) for low, high in pairwise(edges)], np.uint64)
    found: list[NDArray[np.int64]] = []
    for number, mask in enumerate(masks):
        order = np.argsort(joined & mask, kind="stable")
        arguments = (joined[order], order, mask, masks[:number], bits, split)
        free = MOST_PAIRS - sum(map(len, found))
        count = _pairs_of_part(*arguments, free, np.empty((0, 2), np.int64))
        if count > free:
            raise TooManyPairs(
                f"more than {MOST_PAIRS:,} pairs of images look the same at {bits} bits: set near_duplicate.bits lower, or scan "
                "fewer of the images that are that alike, such as every tenth frame of a video"
            )
        found.append(np.empty((count, 2), np.int64))
        _pairs_of_part(*arguments, free, found[-1])
    pairs = np.sort(np.concatenate(found), axis=1)
    if others is not None:
        pairs[:, 1] -= len(hashes)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def same_small(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean difference float[P], of 255, of the small images uint8[P, 16, 16, 3].

    Over all channels, or of luma alone if one of the two has no color: a gray copy is a copy.
    """
    one, other = first.astype(np.float32), second.astype(np.float32)
    color = np.abs(one - other).mean((1, 2, 3))
    luma = np.abs(_luma(one) - _luma(other)).mean((1, 2))
    gray = (np.ptp(first, axis=3).max((1, 2)) <= 2) | (np.ptp(second, axis=3).max((1, 2)) <= 2)
    return np.where(gray, luma, color)


def _luma(small: NDArray[np.float32]) -> NDArray[np.float32]:
    return small @ np.array([0.299, 0.587, 0.114], np.float32)


@njit
def bits_of(x):
    """The number of bits of a uint64 that are 1, by sums of 2, 4 and 8 bits (Knuth, TAOCP 4A, 7.1.3)."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@kernel("comparisons of hashes")
def _pairs_of_part(sources: int):
    """The kernel that compares the hashes with one equal part."""

    def pairs_of_part(in_order, order, part, seen, bits, split, most, pairs):
        """Count the pairs in uint64[N] whose masked `part` is equal and no mask of `seen` is; as many as fit go into `pairs`.

        The hashes are sorted by that part; `order` int64[N] are their indices. A pair has one index below `split`, unless that
        is negative. Counts soon end that are above `most`.
        """
        _ = sources
        count, begin = 0, 0
        while begin < len(order):
            one, end = in_order[begin], begin + 1
            while end < len(order) and (in_order[end] & part) == (one & part):
                end += 1
            for i in range(begin, end):
                one = in_order[i]
                near = 0
                for j in range(i + 1, end):  # nothing but a count of bits, so that the compiler uses vectors
                    near += bits_of(one ^ in_order[j]) <= bits
                if not near:
                    continue
                if count > most:
                    return count
                for j in range(i + 1, end):
                    x, a, b = one ^ in_order[j], order[i], order[j]
                    if bits_of(x) > bits or (split >= 0 and (a < split) == (b < split)):
                        continue
                    first = True
                    for mask in seen:
                        first = first and (x & mask) != np.uint64(0)
                    if first:
                        if count < len(pairs):
                            pairs[count, 0], pairs[count, 1] = a, b
                        count += 1
            begin = end
        return count

    return pairs_of_part
