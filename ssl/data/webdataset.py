"""`webdataset:PATTERN`: images in tar shards, read in any order without unpacking."""

import os
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.cache_folder import cache_folder
from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Images, SourceFile, Split, UnreadableImage
from wildfern.ssl.data.image_file import Bands, Decoding, File, Percentiles, ValueRange
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.labels import Numbered, number_labels
from wildfern.ssl.data.prefetch import Prefetch, again_and_again, too_small
from wildfern.ssl.data.remote import check_address, is_remote
from wildfern.ssl.data.remote_cache import RemoteCache
from wildfern.ssl.data.remote_files import listed_remote, remote_files, remote_split
from wildfern.ssl.data.shard_files import shard_files, split_shards
from wildfern.ssl.data.shard_table import ShardTable, shard_table, split_samples
from wildfern.ssl.data.splits import empty_share, share_words, split_pair
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.tar_headers import LINKS
from wildfern.ssl.data.tar_index import UnusableLabel, read_labels
from wildfern.ssl.data.worker_threads import in_threads

MOST_ENCODED_BYTES = 2 * 2**30  # of one image in a shard, which is read into memory as a whole

_TOGETHER = 256  # shards that a thread looks up


@register("source", "webdataset")
class WebDatasetSource(ImageSource):
    """The samples of all shards that `pattern` names, in the order of the shards.

    pattern: a file, a glob (shard-*.tar), brace ranges and lists (shard-{000000..000009}.tar, {a,b}.tar); a file of exactly this
        name comes first. {split} stands for train or training, and for test, testing or eval, else validation, valid, val or dev.
        Also of addresses (s3://…, gs://…, https://…): globs where the store can list.
    labels: "auto" takes .cls, else "label" of .json: integers, names, or lists of them for several classes; "none": no labels.
    max_side, bands, value_range, percentiles: how the images are read; see `Decoding`.
    test_fraction: without {split}, this share of the samples, chosen by a hash of their names, is the test split.
    index: keep where the images are between commands (`shard_table`); False reads the headers of all shards at every start.
    cache_gb: remote shards are downloaded into the folder `remote` of the user's cache folder. All files there take up to this
        many GiB: those not used for longest make room.

    The index takes about 12 bytes (21 with labels) and the name per image, and is shared by all processes of a host. Labels are
    read when they are needed. A truncated shard gives the samples before the damage and is listed in `skipped`. Links are passed
    over.
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
        index: bool = True,
        cache_gb: float = 100.0,
    ) -> None:
        if not 0.0 <= test_fraction < 1.0:
            raise DataError(f"test_fraction must be in [0, 1), got {test_fraction}")
        self._remote = None
        if is_remote(pattern):
            check_address(pattern)
            self._remote = RemoteCache.of_gibibytes(cache_gb)
        if "{split}" in pattern:
            self._files, self.split_words = self._of_split(pattern, split)
            test_fraction = 0.0
        elif split == "test" and not test_fraction:
            raise DataError(
                f"webdataset:{pattern} has no test split; write {{split}} in place of train or test in the file names, or set "
                "test_fraction, for example 0.1"
            )
        else:
            self._files = (
                remote_files(pattern, self._remote) if self._remote is not None else _noted(shard_files(pattern))
            )
        self._shards = [file.path for file in self._files]
        self._prefetch = None if self._remote is None else Prefetch(self._remote)
        self._is_larger = self._remote is not None and sum(file.size for file in self._files) > self._remote.most
        self._index_folder = cache_folder("indexes") if index else None
        self._table = table = shard_table(self._files, self._index_folder)
        if not len(table):
            raise DataError(_no_images(pattern, self._shards, table))
        self._items: NDArray | None = None  # all samples
        if test_fraction:
            self._items = split_samples(table, self._files, test_fraction, self._index_folder)[split]
            self.split_words = share_words(split, test_fraction, "samples, by a hash of their names")
            if not len(self._items):
                raise DataError(empty_share(pattern, split, test_fraction, len(table), "samples of"))
        items = len(table) if self._items is None else len(self._items)
        super().__init__(items, decoding=Decoding(max_side, 1, bands, value_range, percentiles))
        for number, fault in table.faults.items():
            self.skip(self._shards[number], fault)
        members, passed_over, lone_labels = table.counts.tolist()
        if passed_over:
            has_links = any(words in table.passed_over for words in LINKS.values())
            advice = "; write files for the links (tar --dereference --hard-dereference)" if has_links else ""
            self.note(f"{pattern}: passed over {passed_over:,} of {members:,} members: {table.passed_over}{advice}")
        if lone_labels:
            self.note(
                f"{pattern}: labels (.cls, .json) with no image beside them: {lone_labels:,}; the files of a sample must follow "
                "each other in a shard (tar --sort=name)"
            )
        stems = [os.path.splitext(os.path.basename(path))[0] for path in self._shards]
        if pair := split_pair(stems, shards=True):
            self.note(
                f"{pattern}: shards of {pair[0]} and {pair[1]} are read as one; write {{split}} for the word that differs, to "
                "keep test images apart"
            )
        self._pattern, self._split, self._labels = pattern, split, labels

    @property
    def blocks(self) -> NDArray[np.int64]:
        """The first item of each shard, and the number of items."""
        starts = self._table.starts
        if self._items is None:
            return starts
        # Of the type of the items, which are not copied then.
        return np.searchsorted(self._items, starts.astype(self._items.dtype))

    def item_name(self, item: int) -> str:
        return self._sample_name(self._sample(item))

    def _sample(self, item: int) -> int:
        return int(item if self._items is None else self._items[item])

    def _sample_name(self, sample: int) -> str:
        return f"{self._shards[self._table.shard_of(sample)]}/{self._table.name(sample)}"

    def _of_split(self, pattern: str, split: Split) -> tuple[list[SteadyFile], str]:
        if self._remote is not None:
            return remote_split(pattern, split, self._remote)
        shards, words = split_shards(pattern, split)
        return _noted(shards), words

    def expect(self, items: ArrayLike) -> None:
        """Download the shards of these items, which are read soon in this order."""
        if self._prefetch is None:
            return
        samples = np.asarray(items) if self._items is None else self._items[np.asarray(items)]
        shards = dict.fromkeys((np.searchsorted(self._table.starts, samples, "right") - 1).tolist())
        if not self._prefetch.want([self._files[shard] for shard in shards]):
            self.note(too_small(self._pattern))

    def read(self, items: ArrayLike) -> Images:
        if self._is_larger and not self.reads_by_blocks and bool((np.diff(np.asarray(items)) < 0).any()):
            self.note(again_and_again(self._pattern))
        return super().read(items)

    def files(self) -> Iterator[SourceFile]:
        if self._remote is not None:
            yield from listed_remote(self._files)
            return
        paths = [os.path.abspath(path) for path in self._shards]
        folder = os.path.commonpath([os.path.dirname(path) for path in paths])
        for path, file in zip(paths, self._files, strict=True):
            yield SourceFile(path.removeprefix(folder).lstrip(os.sep), file.size, file.path)

    def encoded(self, item: int) -> File:
        sample = self._sample(item)
        size = int(self._table.sizes[sample])
        if size > MOST_ENCODED_BYTES:
            raise UnreadableImage(f"{size:,} bytes; a member of more than {MOST_ENCODED_BYTES:,} is not read")
        with self._files[self._table.shard_of(sample)].open() as shard:
            shard.seek(int(self._table.offsets[sample]))
            return shard.read(size)

    def load_labels(self) -> Numbered:
        """Also reads those of the other split, so that a class has the same number in both."""
        if self._labels == "none":
            return None, None
        mine = _written_labels(self._files, self._table)
        unusable = [sample for sample, label in enumerate(mine) if isinstance(label, UnusableLabel)]
        if unusable:
            self.note(
                f"{self._pattern}: labels that cannot be used, whose images have none: {len(unusable):,}; for example of "
                f"{self._sample_name(unusable[0])}: {mine[unusable[0]].reason}"
            )
        others: list[Any] = []
        if "{split}" in self._pattern:
            try:
                files, _ = self._of_split(self._pattern, "train" if self._split == "test" else "test")
            except DataError:
                files = []
            if files:
                others = _written_labels(files, shard_table(files, self._index_folder))
        usable = ([None if isinstance(v, UnusableLabel) else v for v in labels] for labels in (mine, others))
        numbers, names = number_labels(*usable, f"labels of {self._pattern}")
        return numbers if numbers is None or self._items is None else numbers[self._items], names


def _noted(shards: list[str]) -> list[SteadyFile]:
    """The shards as they are now; looking them up one after the other takes long on a network."""
    parts = [shards[first : first + _TOGETHER] for first in range(0, len(shards), _TOGETHER)]
    return [
        file
        for files in in_threads(lambda part: [SteadyFile.of(path) for path in part], parts, "shards")
        for file in files
    ]


def _written_labels(shards: list[SteadyFile], table: ShardTable) -> list[Any]:
    """The label of each sample as written."""

    def read(number: int) -> list[Any]:
        return read_labels(shards[number], table.labels_of(number))

    return [label for labels in in_threads(read, range(len(shards)), "shards") for label in labels]


def _no_images(pattern: str, shards: list[str], table: ShardTable) -> str:
    message = f"no images in the {len(shards)} shards of {pattern}"
    message += f"; they have {table.passed_over}" if table.passed_over else ""
    faults = "; ".join(f"{shards[number]}: {fault}" for number, fault in table.faults.items())
    return message + (f" ({faults})" if faults else "")
