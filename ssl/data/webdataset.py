"""`webdataset:PATTERN`: images in tar shards, read in any order without unpacking."""

import glob
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Split
from wildfern.ssl.data.image_file import Bands, Decoding, File, Percentiles, ValueRange
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.path_store import PathStore
from wildfern.ssl.data.tar_index import ShardIndex, index_shard


@register("source", "webdataset")
class WebDatasetSource(ImageSource):
    """The samples of all shards that `pattern` names, in the order of the shards.

    pattern: a file, a glob (shard-*.tar), brace ranges and lists (shard-{000000..000009}.tar, {a,b}.tar); {split} stands for
        train or test, and without it there is no test split.
    labels: "auto" takes .cls, else "label" of .json, integers or names; "none" gives no labels.
    max_side, bands, value_range, percentiles: how the images are read; see `Decoding`.

    The headers of all shards are read at the start (tens of thousands of files per second); the index takes about 30 bytes and
    the name per image. A truncated shard gives the samples before the damage and is listed in `skipped`.
    """

    def __init__(
        self,
        pattern: str,
        split: Split = "train",
        *,
        labels: Literal["auto", "none"] = "auto",
        max_side: int | None = None,
        bands: Bands | None = None,
        value_range: ValueRange | None = None,
        percentiles: Percentiles | None = None,
    ) -> None:
        if "{split}" not in pattern and split == "test":
            raise DataError(
                f"webdataset:{pattern} has no test split; write {{split}} in place of train or test in the file names"
            )
        self._shards = shard_files(pattern.replace("{split}", split))
        self._names = PathStore()
        indexes = _index_all(self._shards, labels=labels == "auto")
        for index in indexes:
            for key in index.keys:
                self._names.append(key)
        self._offsets = np.concatenate([np.array(index.offsets, np.int64) for index in indexes])
        self._sizes = np.concatenate([np.array(index.sizes, np.int64) for index in indexes])
        self._shard = np.repeat(np.arange(len(indexes), dtype=np.int32), [len(index.keys) for index in indexes])
        if not len(self._shard):
            faults = "; ".join(f"{index.path}: {index.fault}" for index in indexes if index.fault)
            raise DataError(f"no images in the {len(indexes)} shards of {pattern}" + (f" ({faults})" if faults else ""))
        names = {label for index in indexes for label in index.labels if label is not None}
        if any(isinstance(name, str) for name in names):  # a class has the same number in both splits
            other = pattern.replace("{split}", "train" if split == "test" else "test")
            beside = _index_all(_existing(other), labels=True) if "{split}" in pattern else []
            names |= {label for index in beside for label in index.labels if label is not None}
        decoding = Decoding(max_side, 1, bands, value_range, percentiles)
        super().__init__(len(self._shard), *_number_labels(indexes, names), decoding)
        for index in indexes:
            if index.fault:
                self.skip(index.path, index.fault)

    def item_name(self, item: int) -> str:
        return f"{self._shards[self._shard[item]]}/{self._names[item]}"

    def encoded(self, item: int) -> File:
        with open(self._shards[self._shard[item]], "rb") as shard:
            shard.seek(int(self._offsets[item]))
            return shard.read(int(self._sizes[item]))


def shard_files(pattern: str) -> list[str]:
    """The files that a pattern names, in order. Raises DataError if one named by braces is missing or nothing matches."""
    files = []
    for expanded in expand_braces(os.path.expanduser(pattern)):
        found = sorted(glob.glob(expanded)) if glob.has_magic(expanded) else [expanded]
        files.extend(found)
    missing = [file for file in files if not os.path.isfile(file)]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(files)} shards of {pattern} are missing, the first is {missing[0]}"
        )
    if not files:
        raise DataError(f"no file matches {pattern}")
    return files


def _existing(pattern: str) -> list[str]:
    try:
        return shard_files(pattern)
    except DataError:
        return []


def _index_all(shards: list[str], *, labels: bool) -> list[ShardIndex]:
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1)), "tar-index") as pool:
        return list(pool.map(lambda path: index_shard(path, labels=labels), shards))


def expand_braces(pattern: str) -> list[str]:
    """Shell braces: "a-{08..10}" -> a-08, a-09, a-10; "{x,y}" -> x, y; several in one pattern multiply out."""
    brace = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if brace is None:
        return [pattern]
    first, last, choices = brace.groups()
    if choices is None:
        width = len(first) if first.startswith("0") else 0
        middles = [str(number).zfill(width) for number in range(int(first), int(last) + 1)]
    else:
        middles = choices.split(",")
    head, tail = pattern[: brace.start()], pattern[brace.end() :]
    return [head + middle + rest for middle in middles for rest in expand_braces(tail)]


def _number_labels(
    indexes: list[ShardIndex], known: set[int | str]
) -> tuple[NDArray[np.int64] | None, list[str] | None]:
    raw = [label for index in indexes for label in index.labels]
    if not known:
        return None, None
    if all(isinstance(label, int) for label in known):
        names = [str(label) for label in range(max(known) + 1)]
        return np.array([-1 if label is None else max(label, -1) for label in raw], np.int64), names
    names = sorted(map(str, known))
    number = {name: label for label, name in enumerate(names)}
    return np.array([-1 if label is None else number[str(label)] for label in raw], np.int64), names
