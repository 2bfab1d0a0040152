"""Test splits that depend only on the items: the same on every machine and in every release."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from wildfern.generators.counter_rng import fold, key


def stratified_split(labels: NDArray[np.int64], split: str, name: str, test_fraction: float) -> NDArray[np.int64]:
    """Items of one split, ascending: each class is sorted by a hash of (name, item), and its first part is the test split."""
    ranks = fold(np.uint64(key("split", name)), np.arange(len(labels)))
    in_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = members[np.argsort(ranks[members], kind="stable")]
        in_test[order[: round(test_fraction * len(members))]] = True
    return np.flatnonzero(in_test if split == "test" else ~in_test)


def name_in_test(name: str, test_fraction: float) -> bool:
    """Whether the file with this relative path is in the test split: by a hash of the path, so adding files moves no other."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") < test_fraction * 2.0**64
