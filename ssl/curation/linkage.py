"""Groups of similar images by complete linkage: all members of a group are similar to each other.

Connected components would chain: a like b and b like c puts a and c in one group, and a large set becomes one group.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.generators.compiling import kernel
from wildfern.ssl.data.base import DataError

Index = NDArray[np.int64]


def complete_linkage(pairs_first: ArrayLike, pairs_second: ArrayLike, count: int, order: ArrayLike) -> Index:
    """The group int64[count] of each item 0 … count - 1; -1 for an item in no group.

    Walks through the items in `order` int64[count], a permutation, best first: an item joins the earliest group all of whose
    members it is paired with, or starts a group. Groups of one are then dropped, and the others numbered 0, 1, … by their first
    members in `order`; that member is the best one of its group.

    The pairs int64[P] are symmetric, may be repeated and in any order. Time and memory are in proportion to pairs and items.
    Raises DataError if pairs or order name an item that does not exist.
    """
    first, second, order = (_integers(array) for array in (pairs_first, pairs_second, order))
    if first.shape != second.shape:
        raise DataError(f"each pair needs two items, got {first.size} first and {second.size} second ones")
    for items in (first, second):
        if items.size and not 0 <= items.min() <= items.max() < count:
            raise DataError(f"pairs must name items 0 … {count - 1}, got {items.min()} … {items.max()}")
    if order.shape != (count,) or not np.array_equal(np.sort(order), np.arange(count)):
        raise DataError(f"order must be a permutation of the items 0 … {count - 1}")
    return _link(first, second, order)


def _integers(array: ArrayLike) -> Index:
    array = np.asarray(array)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DataError(f"items must be integers in one dimension, got {array.dtype} {list(array.shape)}")
    return np.require(array, np.int64, ["C", "W"])  # one type for the kernel


@kernel("groups of similar images")
def _link(sources: int):
    def link(first, second, order):
        """The groups; all arguments are contiguous int64 arrays."""
        _ = sources
        count = order.size
        rank = np.empty(count, np.int64)
        for place in range(count):
            rank[order[place]] = place

        # For each item, by rank, those before it that it is paired with: ends[r - 1] … ends[r] of `earlier`.
        ends = np.zeros(count + 1, np.int64)
        for pair in range(first.size):
            if first[pair] != second[pair]:
                ends[max(rank[first[pair]], rank[second[pair]]) + 1] += 1
        for place in range(count):
            ends[place + 1] += ends[place]
        earlier = np.empty(ends[count], np.int64)
        free = ends[:-1].copy()
        for pair in range(first.size):
            one, other = rank[first[pair]], rank[second[pair]]
            if one != other:
                later = max(one, other)
                earlier[free[later]] = min(one, other)
                free[later] += 1

        group = np.empty(count, np.int64)  # by rank
        size = np.zeros(count, np.int64)  # of a group
        paired = np.zeros(count, np.int64)  # members of a group that the item is paired with
        seen = np.full(count, -1, np.int64)  # the last item that met this one, as pairs may be repeated
        groups = 0
        for place in range(count):
            for edge in range(ends[place], ends[place + 1]):
                before = earlier[edge]
                if seen[before] != place:
                    seen[before] = place
                    paired[group[before]] += 1
            joined = groups
            for edge in range(ends[place], ends[place + 1]):
                candidate = group[earlier[edge]]
                if paired[candidate] == size[candidate] and candidate < joined:
                    joined = candidate
            for edge in range(ends[place], ends[place + 1]):
                paired[group[earlier[edge]]] = 0
            group[place] = joined
            size[joined] += 1
            groups = max(groups, joined + 1)

        number = np.full(count, -1, np.int64)
        numbered = 0
        for old in range(groups):
            if size[old] > 1:
                number[old] = numbered
                numbered += 1
        found = np.empty(count, np.int64)
        for place in range(count):
            found[order[place]] = number[group[place]]
        return found

    return link
