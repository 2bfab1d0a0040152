"""A seeded permutation of [0, n) computed one index at a time: a Feistel network with cycle walking (Black & Rogaway, 2002).

Nothing is stored or shuffled: a dataset of a billion images costs as much as one of ten.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.generators.counter_rng import bits, fold, key

_ROUNDS = 8
_SMALLEST_BITS = 6  # tiny sets walk within 64 values: halves of 3 bits still mix well

Index = NDArray[np.int64]


def permuted(indices: ArrayLike, num_items: int, seed: int) -> tuple[Index, Index]:
    """Epoch and item of each global index, for endless shuffled epochs over a finite set.

    `indices` int64[N] >= 0 in any order. Returns (epoch int64[N], item int64[N]): epoch = index // num_items, and item is the
    image of index % num_items under a bijection of [0, num_items) that depends on seed and epoch only.
    """
    if num_items < 1:
        raise ValueError(f"a permutation needs at least one item, got {num_items}")
    indices = np.asarray(indices, np.int64)
    if indices.size and indices.min() < 0:
        raise ValueError(f"indices must be 0 or more, got {indices.min()}")
    epochs, positions = np.divmod(indices, num_items)
    epoch_keys = fold(np.uint64(key("permutation", seed)), epochs.ravel())
    items = _walk(positions.ravel(), np.full(positions.size, num_items, np.int64), epoch_keys)
    return epochs, items.reshape(indices.shape)


def permuted_each(indices: Index, num_items: Index, keys: NDArray[np.uint64]) -> tuple[Index, Index]:
    """As `permuted`, for sets of their own: `indices` int64[N] >= 0, each into one of `num_items` int64[N] > 0 items.

    `keys` uint64[N] are random numbers, one for each set.
    """
    epochs, positions = np.divmod(indices, num_items)
    return epochs, _walk(positions, num_items, fold(keys, epochs))


def _walk(positions: Index, num_items: Index, keys: NDArray[np.uint64]) -> Index:
    """A bijection of [0, num_items) for each key, applied to one position: all int64[N], uint64[N]."""
    round_keys = bits(keys, _ROUNDS)
    items = positions.astype(np.uint64)
    sizes, size_of = np.unique(num_items, return_inverse=True)
    widths = np.array([max(_SMALLEST_BITS, int(size - 1).bit_length()) for size in sizes], np.int64)[size_of]
    for width in np.unique(widths).tolist():
        walking = np.flatnonzero(widths == width)
        while walking.size:
            items[walking] = _feistel(items[walking], round_keys[walking], width)
            walking = walking[items[walking].astype(np.int64) >= num_items[walking]]
    return items.astype(np.int64)


def _feistel(values: NDArray[np.uint64], round_keys: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    """A bijection of [0, 2**width): halves of `left` and `right` bits that are swapped every round."""
    left, right = width // 2, width - width // 2
    for number in range(_ROUNDS):
        high, low = values >> np.uint64(right), values & _mask(right)
        scrambled = (high ^ fold(round_keys[:, number], low)) & _mask(left)
        values = (low << np.uint64(left)) | scrambled
        left, right = right, left
    return values


def _mask(width: int) -> np.uint64:
    return np.uint64((1 << width) - 1)
