"""`parquet:PATH`: images in parquet files, for example in the Hugging Face layout: image{bytes, path}, label."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Images, SourceFile, Split, UnreadableImage, listed_files
from wildfern.ssl.data.copy_folder import GIB
from wildfern.ssl.data.groups import Groups, without_unreadable
from wildfern.ssl.data.image_column import find_image_column
from wildfern.ssl.data.image_file import Bands, Decoding, File, Percentiles, ValueRange
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.label_column import check_label_column, class_names_of, other_label_columns, read_column
from wildfern.ssl.data.labels import Numbered, number_labels
from wildfern.ssl.data.parquet_bounds import read_schema
from wildfern.ssl.data.parquet_files import no_files, split_files
from wildfern.ssl.data.paths import existing_folder
from wildfern.ssl.data.prefetch import Prefetch, again_and_again, too_small
from wildfern.ssl.data.remote import is_remote
from wildfern.ssl.data.remote_cache import TAIL, RemoteCache
from wildfern.ssl.data.remote_files import listed_remote
from wildfern.ssl.data.splits import empty_share, rows_of_split, share_words
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.target_columns import check_target_column, missing_note, target_numbers, targets_of
from wildfern.ssl.data.unpacked_rows import UnpackedRows


@register("source", "parquet")
class ParquetSource(ImageSource):
    """Rows of the parquet files of a split in the folder `path` (or its folder data), or of the single file `path`.

        Also addresses (s3://…, gs://…, https://…) of files, with braces and {split}; globs where the store can list.
    split: train.parquet, train-*.parquet or train/*.parquet in any case, also training; for test: test, testing or eval, else
        validation, valid, val or dev. Without names of splits, all files are the train split.
    train_files, test_files: a file, a folder or a pattern (*) below `path` instead.
    test_fraction: where there are no test files, this share of the rows, chosen by a hash of their number, is the test split.
    image_column: encoded images as bytes, structs with bytes (or with the path of a file, see `image_folder`), or lists of
        uint8; None finds it. label_column: integers, names, or lists of either for several classes; lists of one length with
        only 0 and 1 are multi-hot. None, or no column of the default name: unlabeled. It is read when labels are needed.
    group_columns: columns of texts or numbers by which test images are grouped, read when groups are needed.
    target_columns: columns of numbers that a regression predicts, `Images.parameters` as they are in the table; NaN for null.
    max_side, bands, value_range, percentiles: how the images are read; see `Decoding`.
    image_folder: folder that paths in rows are relative to (else to their parquet file), and below which the files must be after
        links are followed; None: that of each parquet file.
    memory_gb: keep the encoded column in memory up to this size in GiB; of a larger one, the row groups that were last used.
    disk_gb: a larger one that is read in random order is unpacked once, into the folder `parquet` of the user's cache folder, for
        all processes and later runs. All copies there take up to this many GiB: those not used for longest make room. 0: no copy.
        Without one, each image in random order takes the decoding of a row group.
    cache_gb: remote files are downloaded into the folder `remote` of the user's cache folder. All files there take up to this
        many GiB: those not used for longest make room.

    A damaged row group is skipped; a damaged footer is an error. So is a file that changes while it is read.
    """

    def __init__(
        self,
        path: str,
        split: Split = "train",
        *,
        train_files: str | None = None,
        test_files: str | None = None,
        test_fraction: float = 0.0,
        image_column: str | None = None,
        label_column: str | None = "label",
        group_columns: tuple[str, ...] = (),
        target_columns: tuple[str, ...] = (),
        max_side: int | None = None,
        bands: Bands | None = None,
        value_range: ValueRange | None = None,
        percentiles: Percentiles | None = None,
        memory_gb: float = 0.5,
        disk_gb: float = 100.0,
        image_folder: str | None = None,
        cache_gb: float = 100.0,
    ) -> None:
        if not 0.0 <= test_fraction < 1.0:
            raise DataError(f"test_fraction must be in [0, 1), got {test_fraction}")
        if not disk_gb >= 0:
            raise DataError(f"disk_gb must be a number of GiB of at least 0, got {disk_gb}")
        named: dict[Split, str | None] = {"train": train_files, "test": test_files}
        other: Split = "test" if split == "train" else "train"
        self._remote = RemoteCache.of_gibibytes(cache_gb, TAIL) if is_remote(path) else None
        found = split_files(path, split, named[split], named[other], self._remote)
        by_hash = False
        if test_fraction and not (
            found.files if split == "test" else split_files(path, "test", test_files, train_files, self._remote).files
        ):
            found, by_hash = split_files(path, "train", train_files, test_files, self._remote), True
        if not found.files:
            raise DataError(no_files(path, split, self._remote is not None))
        self._files = found.files
        self._prefetch = None if self._remote is None else Prefetch(self._remote)
        schemas = [read_schema(SteadyFile.of(file)) for file in self._files]
        columns = [find_image_column(s, str(f), image_column) for f, s in zip(self._files, schemas, strict=True)]
        if len({column.name for column in columns}) > 1:
            odd = next(i for i, column in enumerate(columns) if column.name != columns[0].name)
            raise DataError(
                f"{self._files[odd]} has images in column {columns[odd].name!r}, but {self._files[0]} in {columns[0].name!r}"
            )
        for file, schema in zip(self._files, schemas, strict=True):
            if label_column not in (None, "label") and label_column not in schema.names:
                raise DataError(f"{file}: no label column {label_column!r}; it has {', '.join(schema.names)}")
            for key, columns_of_key in (("group_columns", group_columns), ("target_columns", target_columns)):
                for column in columns_of_key:
                    if column not in schema.names:
                        near = get_close_matches(column, schema.names, 1, 0.5)
                        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(schema.names)}"
                        raise DataError(f"{file}: no column {column!r} ({key}); {hint}")
            for column in target_columns:
                check_target_column(schema, str(file), column)
        below = None if image_folder is None else existing_folder(image_folder)
        self._rows = UnpackedRows(self._files, columns, int(memory_gb * GIB), below, disk_gb * GIB)
        # Up to disk_gb a copy is read in random order.
        self._is_larger = self._remote is not None and (
            sum(file.size for file in self._rows.noted) > max(self._remote.most, disk_gb * GIB)
        )
        if not len(self._rows):
            raise DataError(f"no rows in {', '.join(map(str, self._files[:3]))}")
        self._items = rows_of_split(len(self._rows), split, test_fraction) if by_hash else np.arange(len(self._rows))
        if not len(self._items):
            raise DataError(empty_share(path, split, test_fraction, len(self._rows), "rows of"))
        super().__init__(len(self._items), decoding=Decoding(max_side, 1, bands, value_range, percentiles))
        share = share_words(split, test_fraction, "rows, by a hash of their number")
        self.split_words = ", ".join([*([found.words] if found.words else []), *([share] if by_hash else [])])
        for message in found.notes:
            self.note(message)
        if image_column is None and columns[0].name != "image":
            self.note(f"{path}: images are read from column {columns[0].name}")
        self._path = path
        self._others = (path, other, named[other], named[split], self._remote) if not by_hash else None
        self._label_column, self._group_columns = label_column, group_columns
        self._groups: tuple[Groups, ...] | None = None
        self.parameter_names = tuple(dict.fromkeys(target_columns))
        self._targets: NDArray[np.float32] | None = None
        self._targets_lock = threading.Lock()

    @property
    def groups(self) -> tuple[Groups, ...]:  # type: ignore[override]
        if self._groups is None:
            values = {column: read_column(self._rows.noted, column) for column in self._group_columns}
            try:
                self._groups = tuple(Groups.of(column, values[column])[self._items] for column in values)
            except ValueError as error:
                raise DataError(f"{self._files[0].parent}: {error}") from error
        return without_unreadable(self._groups, map(self.item_name, range(len(self._items))), self.skipped)

    @property
    def blocks(self) -> NDArray[np.int64]:
        starts = self._rows.starts
        if self._remote is not None:  # row groups of a file stay together, since it is downloaded as a whole
            starts = np.array([*(row for row in starts[:-1].tolist() if self._rows.locate(row)[1] == 0), starts[-1]])
        return np.unique(np.searchsorted(self._items, starts))  # each once: a row group may have no items

    def prepare(self) -> None:
        self._prepare(random_order=True)

    def _prepare(self, random_order: bool) -> None:
        # the rows among which that number of images of this source are, on average
        self._rows.window = -(-self.reads_by_blocks * len(self._rows) // len(self._items))
        self._rows.prepare(random_order)
        for message in self._rows.notes:
            self.note(message)

    def read(self, items: ArrayLike) -> Images:
        items = np.asarray(items, np.int64)
        random_order = bool((np.diff(items) < 0).any())
        self._prepare(random_order)
        if self._is_larger and random_order and not self.reads_by_blocks:
            self.note(again_and_again(self._path))
        images = super().read(items)
        if not self.reads_parameters or not self.parameter_names:
            return images
        return replace(images, parameters=targets_of(self._loaded_targets(), items, self.item_name, self.skipped))

    def _loaded_targets(self) -> NDArray[np.float32]:
        with self._targets_lock:
            if self._targets is None:
                where = str(self._files[0].parent)
                columns = {column: read_column(self._rows.noted, column) for column in self.parameter_names}
                self._targets = target_numbers(columns, where)[self._items]
                if note := missing_note(self._targets, self.parameter_names, where):
                    self.note(note)
        return self._targets

    def expect(self, items: ArrayLike) -> None:
        """Download the files of these items, which are read soon in this order."""
        if self._prefetch is None:
            return
        files = dict.fromkeys(self._rows.locate(int(row))[0] for row in self._items[np.asarray(items)])
        if not self._prefetch.want([SteadyFile.of(file) for file in files]):
            self.note(too_small(self._path))

    def item_name(self, item: int) -> str:
        file, row = self._rows.locate(int(self._items[item]))
        return f"{file} row {row}"

    def files(self) -> Iterator[SourceFile]:
        remote = [file for file in self._files if isinstance(file, SteadyFile)]
        return listed_remote(remote) if remote else listed_files([str(file) for file in self._files])

    def encoded(self, item: int) -> File:
        encoded = self._rows[int(self._items[item])]
        if encoded is None:
            raise UnreadableImage("the row has no bytes")
        return encoded

    def load_labels(self) -> Numbered:
        """Also reads those of the other split, so that a class has the same number in both."""
        column = self._label_column
        if column is None:
            return None, None
        schemas = self._rows.schemas
        if missing := [i for i, schema in enumerate(schemas) if column not in schema.names]:
            if len(missing) < len(schemas):
                self.note(f"{self._files[missing[0]]} has no column {column}: all images are read without labels")
            elif hint := other_label_columns(schemas[0], column):
                raise DataError(f"{self._files[0]}: {hint}")
            return None, None
        for file, schema in zip(self._files, schemas, strict=True):
            check_label_column(schema, str(file), column)
        names = class_names_of(schemas[0], column)
        where = f"{self._files[0].parent}: column {column}"
        mine = read_column(self._rows.noted, column)
        others = read_column(self._other_files(column), column) if names is None else []
        numbers, class_names = number_labels(mine, others, where, names)
        return None if numbers is None else numbers[self._items], class_names

    def _other_files(self, column: str) -> list[SteadyFile]:
        """The files of the other split that have the column in a form that can be labels."""
        usable = []
        try:
            for file in split_files(*self._others).files if self._others is not None else []:
                schema = read_schema(noted := SteadyFile.of(file))
                if column in schema.names:
                    check_label_column(schema, str(file), column)
                    usable.append(noted)
        except DataError:  # reported when that split is opened
            return []
        return usable
