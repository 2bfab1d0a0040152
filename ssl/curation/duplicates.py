"""Copies of one image: with the same bytes or pixels, or re-encoded and resized, found by their hashes."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.curation.hash_pairs import TooManyPairs, hash_pairs, same_small
from wildfern.ssl.curation.image_table import ImageTable
from wildfern.ssl.curation.linkage import complete_linkage
from wildfern.ssl.curation.policy import Duplicates

QUALITY = 4.0  # of 255: standard deviation of the hashed 32 x 32 pixels; the hash of a smoother image is arbitrary
SHAPE = 0.1  # difference of two aspect ratios, relative
_MANY = 1000  # images of one hash, which would have half a million pairs
_READ = 1 << 17  # pairs whose small images are read at once, which may be all over the manifest
_COMPARED = 1 << 13  # pairs that are compared at once


@dataclass(frozen=True)
class Copies:
    """- best: int64[N], the best copy of each image's group; the image itself where it has none, or is the best.
    - group: int32[N], numbers the groups; -1: no other copy.
    - exact: bool[N], whether the pixels of `best` are the same.
    - difference: float32[N], of the small images of it and of `best`, of 255.
    - bits: in which hashes of copies differ at most; below those of the rule if that gave too many pairs, -1 if any did.
    """

    best: NDArray[np.int64]
    group: NDArray[np.int32]
    exact: NDArray[np.bool_]
    difference: NDArray[np.float32]
    bits: int


def find_copies(images: ImageTable, rule: Duplicates, rank: NDArray[np.int8]) -> Copies:
    """Group the copies among the images that can be read. The best copy has the lowest `rank`, then most pixels, then most bytes.

    In a group, each is a copy of each other (complete linkage), or has the pixels of one that is. Of a hash that more than a
    thousand images have, such as frames of a camera that stands still, those that look like the best one go with it.
    """
    order = best_first(images, rank)
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    codes = images.codes("pixels_sha256")
    readable = np.flatnonzero(codes >= 0)
    exact_best = np.arange(len(images))
    exact_best[readable] = _leaders(codes[readable], readable, position)

    unique = np.flatnonzero((codes >= 0) & (exact_best == np.arange(len(images))))
    featured = unique[images.numbers("phash_quality")[unique] >= QUALITY]
    same_hash = np.arange(len(images))
    leaders = _leaders(images.hashes[featured], featured, position)
    twin = (np.bincount(leaders, minlength=len(images))[leaders] > _MANY) & (featured != leaders)
    twin[twin] = _agree(images, featured[twin], leaders[twin], rule)
    same_hash[featured[twin]] = leaders[twin]
    featured = featured[~twin]

    pairs, bits = near_pairs(images, featured, rule)
    ranked = np.argsort(position[featured], kind="stable")
    group_of = complete_linkage(pairs[:, 0], pairs[:, 1], len(featured), ranked)
    best = np.arange(len(images))
    first: dict[int, int] = {}
    for place in ranked[group_of[ranked] >= 0].tolist():
        best[featured[place]] = first.setdefault(int(group_of[place]), int(featured[place]))
    best = best[same_hash][exact_best]
    exact = exact_best == best
    difference = np.zeros(len(images), np.float32)
    near = np.flatnonzero(~exact)
    difference[near] = _differences(images, near, best[near])
    is_leader = np.bincount(best, minlength=len(images)) > 1
    numbers = np.where(is_leader, np.cumsum(is_leader) - 1, -1).astype(np.int32)
    return Copies(best, numbers[best], exact, difference, bits)


def _leaders(codes: NDArray, chosen: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each image of `chosen` int64[n] the one of the same code, [n], that comes first by `position` int64[N]."""
    _, inverse = np.unique(codes, return_inverse=True)
    first = np.full(inverse.max(initial=-1) + 1, len(position), np.int64)
    np.minimum.at(first, inverse, position[chosen])
    by_position = np.empty(len(position), np.int64)
    by_position[position] = np.arange(len(position))
    return by_position[first[inverse]]


def near_pairs(images: ImageTable, chosen: NDArray[np.int64], rule: Duplicates) -> tuple[NDArray[np.int64], int]:
    """Pairs int64[P, 2] of places in `chosen` whose hashes, shapes and small images agree, and the bits that were compared.

    These are fewer than the rule's if more than 50 million pairs of hashes agree in them; -1: in none.
    """
    for bits in range(rule.bits, -1, -1):
        with suppress(TooManyPairs):
            pairs = hash_pairs(images.hashes[chosen], bits)
            return pairs[_agree(images, chosen[pairs[:, 0]], chosen[pairs[:, 1]], rule)], bits
    return np.zeros((0, 2), np.int64), -1


def _agree(
    images: ImageTable, first: NDArray[np.int64], second: NDArray[np.int64], rule: Duplicates
) -> NDArray[np.bool_]:
    """Whether shapes and small images of two images int64[P] each agree, bool[P]."""
    width, height = images.numbers("width"), images.numbers("height")
    ratio = np.log(width[first] * height[second]) - np.log(height[first] * width[second])
    least = np.minimum(np.minimum(width[first], height[first]), np.minimum(width[second], height[second]))
    found = np.abs(ratio) <= SHAPE + 1 / least  # a side of n pixels is known up to 1 / n
    some = np.flatnonzero(found)
    found[some] = _differences(images, first[some], second[some]) <= rule.difference
    return found


def _differences(images: ImageTable, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean difference of the small images of two images int64[P] each, float32[P], of 255."""
    found = [np.zeros(0, np.float32)]
    for start in range(0, len(first), _READ):
        pairs = np.stack([first[start : start + _READ], second[start : start + _READ]], axis=1)
        places, inverse = np.unique(pairs, return_inverse=True)
        small = images.read_small(places)
        for side in np.array_split(inverse.reshape(-1, 2), -(-len(pairs) // _COMPARED)):
            found.append(same_small(small[side[:, 0]], small[side[:, 1]]))
    return np.concatenate(found)


def best_first(images: ImageTable, rank: NDArray[np.int8]) -> NDArray[np.int64]:
    """All images int64[N]: by `rank`, then most pixels, then most bytes, then place in the manifest."""
    pixels = np.nan_to_num(images.numbers("width") * images.numbers("height"))
    return np.lexsort((np.arange(len(images)), -np.nan_to_num(images.numbers("bytes")), -pixels, rank))
