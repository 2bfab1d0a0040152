"""Copies of one image: with the same bytes or pixels, or re-encoded and resized, found by their hashes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.curation.hash_pairs import hash_pairs, same_small
from wildfern.ssl.curation.image_table import ImageTable
from wildfern.ssl.curation.linkage import complete_linkage
from wildfern.ssl.curation.policy import Duplicates

QUALITY = 4.0  # of 255: standard deviation of the hashed 32 x 32 pixels; the hash of a smoother image is arbitrary
SHAPE = 0.1  # difference of two aspect ratios, relative
_READ = 1 << 17  # pairs whose small images are read at once, which may be all over the manifest
_COMPARED = 1 << 13  # pairs that are compared at once


@dataclass(frozen=True)
class Copies:
    """- best: int64[N], the best copy of each image's group; the image itself where it has none, or is the best.
    - group: int32[N], numbers the groups; -1: no other copy.
    - exact: bool[N], whether the pixels of `best` are the same.
    - difference: float32[N], of the small images of it and of `best`, of 255.
    """

    best: NDArray[np.int64]
    group: NDArray[np.int32]
    exact: NDArray[np.bool_]
    difference: NDArray[np.float32]


def find_copies(images: ImageTable, rule: Duplicates, rank: NDArray[np.int8]) -> Copies:
    """Group the copies among the images that can be read. The best copy has the lowest `rank`, then most pixels, then most bytes.

    In a group, each is a copy of each other (complete linkage).
    """
    order = best_first(images, rank)
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    codes = images.codes("pixels_sha256")
    readable = np.flatnonzero(codes >= 0)
    _, first, same = np.unique(codes[readable], return_index=True, return_inverse=True)
    leader = np.full(len(first), len(order), np.int64)
    np.minimum.at(leader, same, position[readable])
    exact_best = np.arange(len(images))
    exact_best[readable] = order[leader[same]]

    unique = np.flatnonzero((codes >= 0) & (exact_best == np.arange(len(images))))
    featured = unique[images.numbers("phash_quality")[unique] >= QUALITY]
    pairs, difference_of = near_pairs(images, featured, rule)
    ranked = np.argsort(position[featured], kind="stable")
    group_of = complete_linkage(pairs[:, 0], pairs[:, 1], len(featured), ranked)

    best = np.arange(len(images))
    leaders: dict[int, int] = {}
    for place in ranked[group_of[ranked] >= 0].tolist():
        best[featured[place]] = leaders.setdefault(int(group_of[place]), int(featured[place]))
    difference = np.zeros(len(images), np.float32)
    for copy, other in (featured[pairs].T, featured[pairs[:, ::-1]].T):
        is_best = best[copy] == other
        difference[copy[is_best]] = difference_of[is_best]
    best, difference = best[exact_best], difference[exact_best]
    is_leader = np.bincount(best, minlength=len(images)) > 1
    numbers = np.where(is_leader, np.cumsum(is_leader) - 1, -1).astype(np.int32)
    return Copies(best, numbers[best], exact_best == best, difference)


def near_pairs(
    images: ImageTable, chosen: NDArray[np.int64], rule: Duplicates
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pairs int64[P, 2] of places in `chosen` whose hashes, shapes and small images agree, and float32[P], how these differ."""
    pairs = hash_pairs(images.hashes[chosen], rule.bits)
    width, height = (images.numbers(name)[chosen][pairs] for name in ("width", "height"))
    ratio = np.log(width[:, 0] * height[:, 1]) - np.log(height[:, 0] * width[:, 1])
    rounding = 1 / np.minimum(width, height).min(1)  # a side of n pixels is known up to 1 / n
    pairs = pairs[np.abs(ratio) <= SHAPE + rounding]
    kept, values = [pairs[:0]], [np.zeros(0, np.float32)]
    for start in range(0, len(pairs), _READ):
        some = pairs[start : start + _READ]
        places, inverse = np.unique(some, return_inverse=True)
        small = images.read_small(chosen[places])
        sides = np.array_split(inverse.reshape(-1, 2), -(-len(some) // _COMPARED))
        difference = np.concatenate([same_small(small[side[:, 0]], small[side[:, 1]]) for side in sides])
        is_near = difference <= rule.difference
        kept.append(some[is_near])
        values.append(difference[is_near])
    return np.concatenate(kept), np.concatenate(values)


def best_first(images: ImageTable, rank: NDArray[np.int8]) -> NDArray[np.int64]:
    """All images int64[N]: by `rank`, then most pixels, then most bytes, then place in the manifest."""
    pixels = np.nan_to_num(images.numbers("width") * images.numbers("height"))
    return np.lexsort((np.arange(len(images)), -np.nan_to_num(images.numbers("bytes")), -pixels, rank))
