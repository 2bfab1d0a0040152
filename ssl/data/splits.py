"""Names of splits, and test splits that depend only on the items: the same on every machine and in every release."""

import hashlib
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wildfern.generators.counter_rng import fold, key

Role = Literal["train", "test", "valid"]
SPLIT_NAMES: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval"),
    "valid": ("validation", "valid", "val", "dev"),
}
ROLES: dict[str, tuple[Role, ...]] = {
    "train": ("train",),
    "test": ("test", "valid"),
}  # by our split, the first there is


def role_of(name: str) -> Role | None:
    """Which split a folder or file of this name is, in any case; a year may follow (COCO's train2017)."""
    word = re.sub(r"[-_]?(19|20)\d\d$", "", name.lower())
    return next((role for role, names in SPLIT_NAMES.items() if word in names), None)


_ABBREVIATED: dict[str, Role] = {"tr": "train", "trn": "train", "ts": "test", "tst": "test"}


def split_pair(names: Sequence[str], shards: bool = False) -> tuple[str, str] | None:
    """The names of a train and another split among these, if they look like splits although none is named so.

    They do if two names differ only in a word for a split (seg_train and seg_test, trainA and testA, imagesTr and imagesTs), or
    if all names have such a word. With `shards`, numbers at the end are left out, as in x-train-00000-of-00002.
    """
    names = list(dict.fromkeys(re.sub(r"[-_.]?\d+([-_]of[-_]\d+)?$", "", name) for name in names)) if shards else names
    found = {name: parts for name in names if (parts := _role_in(name)) is not None}
    for train, (role, rest) in found.items():
        if role == "train":
            for other, (other_role, other_rest) in sorted(found.items(), key=lambda pair: pair[1][0] != "test"):
                if other_role != "train" and (other_rest == rest or len(found) == len(names)):
                    return train, other
    return None


def _role_in(name: str) -> tuple[Role, str] | None:
    """The split that is a word of this name, and the name without it: train and "_images" for train_images."""
    words = list(re.finditer(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name))
    for match in words:
        word = match[0].lower()
        role = role_of(word.removesuffix("set")) or (_ABBREVIATED.get(word) if len(words) > 1 else None)
        if role is not None:
            return role, (name[: match.start()] + " " + name[match.end() :]).lower()
    return None


def share_words(split: str, test_fraction: float, things: str) -> str:
    """`about 20 % of the files, by a hash of their names`."""
    share = test_fraction if split == "test" else 1.0 - test_fraction
    return f"{'about ' if 'hash' in things else ''}{100 * share:.3g} % of the {things}"


def empty_share(where: str, split: str, test_fraction: float, images: int, things: str = "images") -> str:
    """Why a share of the images is empty, and what to set."""
    if images == 1:
        return f"{where} has one image; a train and a test split need at least two"
    if split == "test":
        better, example = "larger", 0.2 if test_fraction < 0.2 else min(0.9, 2 * test_fraction)
    else:
        better, example = "smaller", 0.2 if test_fraction > 0.2 else test_fraction / 2
    return (
        f"test_fraction {test_fraction:g} leaves no image for the {split} split: all {images:,} {things} {where} are in the "
        f"other one; set a {better} test_fraction, for example {example:g}"
    )


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


def rows_of_split(count: int, split: str, test_fraction: float) -> NDArray[np.int64]:
    """Rows of one split, ascending: a row is in the test split by a hash of its number, so adding rows moves no other."""
    in_test = fold(np.uint64(key("split", "rows")), np.arange(count)) < test_fraction * 2.0**64
    return np.flatnonzero(in_test if split == "test" else ~in_test)
