"""`webdataset:PATTERN`: images in tar shards, read in any order without unpacking."""

import os
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, SourceFile, Split, UnreadableImage, listed_files
from wildfern.ssl.data.file_names import PassedOver
from wildfern.ssl.data.image_file import Bands, Decoding, File, Percentiles, ValueRange
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.labels import Numbered, number_labels
from wildfern.ssl.data.path_store import PathStore
from wildfern.ssl.data.shard_files import shard_files, split_shards
from wildfern.ssl.data.splits import empty_share, name_in_test, share_words, split_pair
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.tar_index import ShardIndex, UnusableLabel, index_shard, read_labels
from wildfern.ssl.data.worker_threads import in_threads

MOST_ENCODED_BYTES = 2 * 2**30  # of one image in a shard, which is read into memory as a whole


@register("source", "webdataset")
class WebDatasetSource(ImageSource):
    """The samples of all shards that `pattern` names, in the order of the shards.

    pattern: a file, a glob (shard-*.tar), brace ranges and lists (shard-{000000..000009}.tar, {a,b}.tar); a file of exactly this
        name comes first. {split} stands for train or training, and for test, testing or eval, else validation, valid, val or dev.
    labels: "auto" takes .cls, else "label" of .json: integers, names, or lists of them for several classes; "none": no labels.
    max_side, bands, value_range, percentiles: how the images are read; see `Decoding`.
    test_fraction: without {split}, this share of the samples, chosen by a hash of their names, is the test split.

    The headers of all shards are read at the start (tens of thousands of files per second); the index takes about 50 bytes and
    the name per image. Labels are read when they are needed. A truncated shard gives the samples before the damage and is listed
    in `skipped`.
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
        test_fraction: float = 0.0,
    ) -> None:
        if not 0.0 <= test_fraction < 1.0:
            raise DataError(f"test_fraction must be in [0, 1), got {test_fraction}")
        if "{split}" in pattern:
            self._shards, self.split_words = split_shards(pattern, split)
            test_fraction = 0.0
        elif split == "test" and not test_fraction:
            raise DataError(
                f"webdataset:{pattern} has no test split; write {{split}} in place of train or test in the file names, or set "
                "test_fraction, for example 0.1"
            )
        else:
            self._shards = shard_files(pattern)
        indexes = in_threads(index_shard, self._shards, "shards")
        self._files = [index.file for index in indexes]
        self._names = PathStore()
        for index in indexes:
            self._names.extend(index.keys)
        self._offsets = np.concatenate([np.array(index.offsets, np.int64) for index in indexes])
        self._sizes = np.concatenate([np.array(index.sizes, np.int64) for index in indexes])
        self._shard = np.repeat(np.arange(len(indexes), dtype=np.int32), [len(index.keys) for index in indexes])
        self._label_places = _label_places(indexes)
        if not len(self._shard):
            raise DataError(_no_images(pattern, indexes))
        self._items = np.arange(len(self._shard))
        if test_fraction:
            in_test = [name_in_test(self._names[item], test_fraction) for item in self._items]
            self._items = np.flatnonzero(np.array(in_test) == (split == "test"))
            self.split_words = share_words(split, test_fraction, "samples, by a hash of their names")
            if not len(self._items):
                raise DataError(empty_share(pattern, split, test_fraction, len(self._shard), "samples of"))
        super().__init__(len(self._items), decoding=Decoding(max_side, 1, bands, value_range, percentiles))
        for index in indexes:
            if index.fault:
                self.skip(index.file.path, index.fault)
        over = _passed_over(indexes)
        if over.total:
            self.note(f"{pattern}: passed over {over.total:,} of {sum(i.members for i in indexes):,} members: {over}")
        if alone := sum(index.lone_labels for index in indexes):
            self.note(
                f"{pattern}: labels (.cls, .json) with no image beside them: {alone:,}; the files of a sample must follow each "
                "other in a shard (tar --sort=name)"
            )
        stems = [os.path.splitext(os.path.basename(path))[0] for path in self._shards]
        if pair := split_pair(stems, shards=True):
            self.note(
                f"{pattern}: shards of {pair[0]} and {pair[1]} are read as one; write {{split}} for the word that differs, to "
                "keep test images apart"
            )
        self._pattern, self._split, self._labels = pattern, split, labels

    def item_name(self, item: int) -> str:
        return self._sample_name(self._items[item])

    def _sample_name(self, sample: int) -> str:
        return f"{self._shards[self._shard[sample]]}/{self._names[sample]}"

    def files(self) -> Iterator[SourceFile]:
        return listed_files(self._shards)

    def encoded(self, item: int) -> File:
        sample = self._items[item]
        size = int(self._sizes[sample])
        if size > MOST_ENCODED_BYTES:
            raise UnreadableImage(f"{size:,} bytes; a member of more than {MOST_ENCODED_BYTES:,} is not read")
        with self._files[self._shard[sample]].open() as shard:
            shard.seek(int(self._offsets[sample]))
            return shard.read(size)

    def load_labels(self) -> Numbered:
        """Also reads those of the other split, so that a class has the same number in both."""
        if self._labels == "none":
            return None, None
        mine = _written_labels(self._files, self._shard, self._label_places)
        unusable = [sample for sample, label in enumerate(mine) if isinstance(label, UnusableLabel)]
        if unusable:
            self.note(
                f"{self._pattern}: labels that cannot be used, whose images have none: {len(unusable):,}; for example of "
                f"{self._sample_name(unusable[0])}: {mine[unusable[0]].reason}"
            )
        others: list[Any] = []
        if "{split}" in self._pattern:
            try:
                shards, _ = split_shards(self._pattern, "train" if self._split == "test" else "test")
            except DataError:
                shards = []
            indexes = in_threads(index_shard, shards, "shards")
            shard = np.repeat(np.arange(len(indexes)), [len(index.keys) for index in indexes])
            others = _written_labels([index.file for index in indexes], shard, _label_places(indexes))
        usable = ([None if isinstance(v, UnusableLabel) else v for v in labels] for labels in (mine, others))
        numbers, names = number_labels(*usable, f"labels of {self._pattern}")
        return None if numbers is None else numbers[self._items], names


_PLACE = np.dtype([("offset", np.int64), ("size", np.int64), ("in_json", np.bool_)])


def _label_places(indexes: list[ShardIndex]) -> np.ndarray:
    """Where the label of each sample is written, in the order of the samples."""
    places = np.zeros(sum(len(index.keys) for index in indexes), _PLACE)
    places["offset"] = np.concatenate([np.array(index.label_offsets, np.int64) for index in indexes])
    places["size"] = np.concatenate([np.array(index.label_sizes, np.int64) for index in indexes])
    places["in_json"] = np.concatenate([np.array(index.in_json, np.bool_) for index in indexes])
    return places


def _written_labels(shards: list[SteadyFile], shard: np.ndarray, places: np.ndarray) -> list[Any]:
    """The label of each sample as written; `shard` holds the number of each sample's shard, ascending."""
    bounds = np.searchsorted(shard, np.arange(len(shards) + 1))
    parts = [(file, places[bounds[i] : bounds[i + 1]].tolist()) for i, file in enumerate(shards)]
    return [label for labels in in_threads(lambda part: read_labels(*part), parts, "shards") for label in labels]


def _passed_over(indexes: list[ShardIndex]) -> PassedOver:
    total = PassedOver()
    for index in indexes:
        total.update(index.passed_over)
    return total


def _no_images(pattern: str, indexes: list[ShardIndex]) -> str:
    over = _passed_over(indexes)
    message = f"no images in the {len(indexes)} shards of {pattern}" + (f"; they have {over}" if over.total else "")
    faults = "; ".join(f"{index.file.path}: {index.fault}" for index in indexes if index.fault)
    return message + (f" ({faults})" if faults else "")
