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
    round_keys = bits(epoch_keys, _ROUNDS)
    width = max(_SMALLEST_BITS, (num_items - 1).bit_length())

    items = positions.ravel().astype(np.uint64)
    walking = np.arange(items.size)
    while walking.size:
        items[walking] = _feistel(items[walking], round_keys[walking], width)
        walking = walking[items[walking] >= num_items]
    return epochs, items.astype(np.int64).reshape(indices.shape)


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
