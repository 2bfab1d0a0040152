"""`csv:PATH`: images that the rows of a table name, for example the metadata.csv of a data set of WILDS."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Images, SourceFile, Split, UnreadableImage
from wildfern.ssl.data.csv_rows import existing_split_column, rows_by_column, rows_by_hash
from wildfern.ssl.data.csv_table import CsvTable
from wildfern.ssl.data.groups import Groups, crossed, without_unreadable
from wildfern.ssl.data.image_file import Bands, Decoding, File, Percentiles, ValueRange
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.labels import Numbered, number_labels
from wildfern.ssl.data.paths import existing_folder, expanded
from wildfern.ssl.data.row_files import file_below, folders_of
from wildfern.ssl.data.target_columns import missing_note, target_numbers, targets_of
from wildfern.ssl.data.worker_threads import check_wanted, worker_threads
from wildfern.ssl.tracking.current_progress import current_progress

Cells = tuple[str | int, ...]
IMAGE_COLUMNS = ("filename", "img_filename", "image_filename", "file_name", "path", "img_path", "image", "file")
_LABEL_COLUMNS = ("label", "labels", "class", "category", "target")
_PLACE = re.compile(r"\{([^{}]*)\}")  # of a column in a template
_MISSING = frozenset({"nan", "na", "n/a", "#n/a", "<na>", "null", "none"})  # as other programs write an empty cell
_CHUNK = 512  # files checked per task of a thread


@register("source", "csv")
class CsvSource(ImageSource):
    """The images that the rows of a table name, in its order; `path` is the table, or the folder with the table `csv`.

    image_column: file names; None takes the first there is of filename, img_filename, image_filename, file_name, path, img_path,
        image and file. With braces a name is made of cells: "train/{filename}" for iWildCam.
    label_column: whole numbers or names; -1 and empty cells are unlabeled. None, or no column of the default name: unlabeled.
        nan, NA, null and none are names of classes like others, with a note; among whole numbers they are refused.
    split_column: a row is of the train or test split if its cell is one of `train` or `test`; other rows are left out, and
        counted in a note. By default 0 and 2 too, as in Waterbirds; [id_test] are iWildCam's test images from cameras of train.
    test_fraction: without a column of the default name, this share of the images, chosen by a hash of their names, is the test
        split; at 0 all are the train split.
    groups: columns by which images are grouped, or lists of columns that are crossed: [place, [y, place]].
    target_columns: columns of numbers that a regression predicts, `Images.parameters` as they are in the table; NaN for an empty
        cell.
    image_folder: folder that file names are relative to, and below which the files must be after links are followed; None: that
        of the table.
    max_side, bands, value_range, percentiles: how the images are read; see `Decoding`.
    check_headers: open every file once at the start, in threads, and leave out those without a usable header; False leaves out
        only those that do not exist.
    """

    def __init__(
        self,
        path: str,
        split: Split = "train",
        *,
        csv: str = "metadata.csv",
        image_column: str | None = None,
        label_column: str | None = "y",
        split_column: str | None = "split",
        train: Cells = ("train", "0"),
        test: Cells = ("test", "2"),
        test_fraction: float = 0.0,
        groups: tuple[str | tuple[str, ...], ...] = (),
        target_columns: tuple[str, ...] = (),
        image_folder: str | None = None,
        max_side: int | None = None,
        bands: Bands | None = None,
        value_range: ValueRange | None = None,
        percentiles: Percentiles | None = None,
        check_headers: bool = True,
    ) -> None:
        if not 0.0 <= test_fraction < 1.0:
            raise DataError(f"test_fraction must be in [0, 1), got {test_fraction}")
        values = {"train": [str(value) for value in train], "test": [str(value) for value in test]}
        if both := sorted({*values["train"]} & {*values["test"]}):
            raise DataError(f"{', '.join(both)} is in train and in test, but a row is of one split")
        decoding = Decoding(max_side, 1, bands, value_range, percentiles)
        table = CsvTable(_table_file(path, csv))
        self._folders = folders_of(table.path.parent if image_folder is None else existing_folder(image_folder))
        template = _template(table, image_column)
        split_column = existing_split_column(table, split_column)
        crossings = [(column,) if isinstance(column, str) else tuple(column) for column in groups]
        columns = dict.fromkeys(column for crossing in crossings for column in crossing)
        for column in columns:
            table.check_column(column, "groups")
        for column in target_columns:
            table.check_column(column, "target_columns")
        if label_column not in (None, "y"):
            table.check_column(label_column, "label_column")
        labeled = label_column in table.columns
        cells = table.read(
            filter(
                None,
                (*_columns_of(template), *columns, *target_columns, split_column, label_column if labeled else None),
            )
        )
        if not cells:
            raise DataError(f"{table.path} has no rows below its first line")
        names, note = _file_names(template, cells), None
        if split_column:
            rows, words, note = rows_by_column(table.path, cells[split_column], split_column, values, split)
        else:
            rows, words = rows_by_hash(table.path, names, test_fraction, split)
        self._names = names.take(rows)
        self._sizes, faults = self._checked_files(decoding if check_headers else None)
        self._items = np.flatnonzero(self._sizes >= 0)
        if not len(self._items):
            place, reason = next(iter(faults.items()))
            raise DataError(
                f"{table.path}: none of the {len(rows):,} images of {split} can be used; for example "
                f"{self._name(place)!r}: {reason}; names are relative to {self._folders[0]}: set image_column or image_folder"
            )
        super().__init__(len(self._items), decoding=decoding)
        for place, reason in faults.items():
            self.skip(self._path(place), reason)
        if note:
            self.note(note)
        self.split_words = words
        kept = rows[self._items]
        parts = {column: Groups.of(column, cells[column].take(kept).to_pylist()) for column in columns}
        self._groups = tuple(crossed(*(parts[column] for column in crossing)) for crossing in crossings)
        self.parameter_names = tuple(dict.fromkeys(target_columns))
        if target_columns:
            where = str(table.path)
            texts = {column: cells[column].take(kept).to_pylist() for column in target_columns}
            self._targets = target_numbers(texts, where)
            if missing := missing_note(self._targets, self.parameter_names, where):
                self.note(missing)
        self._table, self._label_column = table, label_column
        if label_column is not None:
            self.label_hint = (
                f"its table has no column {label_column!r}; label_column names another, of {table.listed()}"
            )
        self._label_texts: list[str] = []
        if labeled:
            encoded = cells[label_column].dictionary_encode()
            self._label_texts = encoded.dictionary.to_pylist()
            self._label_codes = encoded.indices.to_numpy()[kept]

    @property
    def groups(self) -> tuple[Groups, ...]:  # type: ignore[override]
        return without_unreadable(self._groups, map(self.item_name, range(len(self._items))), self.skipped)

    def read(self, items: ArrayLike) -> Images:
        images = super().read(items)
        if not self.reads_parameters or not self.parameter_names:
            return images
        return replace(images, parameters=targets_of(self._targets, items, self.item_name, self.skipped))

    def item_name(self, item: int) -> str:
        return self._path(int(self._items[item]))

    def files(self) -> Iterator[SourceFile]:
        for place in self._items.tolist():
            yield SourceFile(self._name(place), int(self._sizes[place]), self._path(place))

    def encoded(self, item: int) -> File:
        return self._file(int(self._items[item]))

    def load_labels(self) -> Numbered:
        """A class has the same number in all splits of the table, also in those that are left out."""
        where = f"{self._table.path}: column {self._label_column}"
        if not self._label_texts:
            usual = [column for column in self._table.columns if column.lower() in _LABEL_COLUMNS]
            if self._label_column is not None and usual:
                raise DataError(f"{where} does not exist; label_column could be {' or '.join(usual)}")
            return None, None
        numbers, names = number_labels(_label_values(self._label_texts, where), (), where)
        if numbers is None:
            return None, None
        if odd := [text for text in names or () if text.lower() in _MISSING]:
            self.note(
                f"{where}: {', '.join(odd)}: taken as a name of a class; an image without a label has an empty cell"
            )
        labels = numbers[self._label_codes]
        if unlabeled := int((labels < 0).sum()):
            self.note(f"{where}: empty or -1, so without a label: {unlabeled:,} of {len(labels):,} images")
        return labels, names

    def _checked_files(self, decoding: Decoding | None) -> tuple[NDArray[np.int64], dict[int, str]]:
        """Bytes of each file, -1 for one that cannot be used, and the reasons; `decoding` opens each one's header."""

        def check(start: int) -> list[int | str]:
            return [
                self._size_or_fault(place, decoding) for place in range(start, min(start + _CHUNK, len(self._names)))
            ]

        sizes, faults, progress = np.full(len(self._names), -1, np.int64), dict[int, str](), current_progress()
        with worker_threads("header") as pool:
            starts = range(0, len(self._names), _CHUNK)
            for start, found in zip(starts, pool.map(check, starts), strict=True):
                progress.count(start, len(self._names), "files", "checking files")
                for place, size in enumerate(found, start):
                    if isinstance(size, str):
                        faults[place] = size
                    else:
                        sizes[place] = size
        progress.detail("")
        return sizes, faults

    def _size_or_fault(self, place: int, decoding: Decoding | None) -> int | str:
        check_wanted()
        try:
            file = self._file(place)
            if decoding is not None:
                decoding.header_size(file)
            return os.path.getsize(file)
        except UnreadableImage as error:
            return error.reason
        except OSError as error:
            return f"cannot be opened: {error.strerror}"

    def _name(self, place: int) -> str:
        name: str = self._names[place].as_py()
        return name

    def _path(self, place: int) -> str:
        return os.path.join(self._folders[0], self._name(place))

    def _file(self, place: int) -> Path:
        try:
            return file_below(self._folders, self._name(place), "image_folder allows another folder")
        except UnreadableImage as error:
            raise UnreadableImage(error.reason.removeprefix("the row has no bytes, and "), error.fault) from error


def _table_file(path: str, csv: str) -> Path:
    """The file at `path`, or the one named `csv` in this folder."""
    if (file := expanded(path)).is_file():
        return file
    folder = existing_folder(path)
    if not (folder / csv).exists():
        others = sorted(one.name for one in folder.iterdir() if one.suffix.lower() in (".csv", ".tsv"))
        raise DataError(f"{folder} has no table {csv}" + (f"; set csv to {' or '.join(others[:5])}" if others else ""))
    return folder / csv


def _template(table: CsvTable, image_column: str | None) -> str:
    """Names of files with columns in braces; `{filename}` for a column alone."""
    if image_column is None:
        found = next((column for column in IMAGE_COLUMNS if column in table.columns), None)
        if found is None:
            raise DataError(
                f"{table.path}: set image_column to the column with the file names; it has {table.listed()}"
            )
        return f"{{{found}}}"
    template = image_column if "{" in image_column else f"{{{image_column}}}"
    if set(_PLACE.sub("", template)) & set("{}"):
        raise DataError(
            f"image_column {image_column!r} has a brace without its other one: braces are for names of columns, as in "
            "'train/{filename}'"
        )
    for column in _columns_of(template):
        table.check_column(column, "image_column")
    return template


def _columns_of(template: str) -> list[str]:
    return _PLACE.findall(template)


def _file_names(template: str, cells: Mapping[str, Any]) -> Any:
    """The names as an array of pyarrow."""
    import pyarrow.compute as compute

    parts = _PLACE.split(template)  # every second one is a column
    return compute.binary_join_element_wise(*(cells[part] if at % 2 else part for at, part in enumerate(parts)), "")


def _label_values(texts: list[str], where: str) -> list[int | str | None]:
    """Whole numbers if all texts are (also 3.0, as some programs write them), else names; None for an empty one.

    Raises DataError if all are numbers but for words for "missing".
    """
    others = [text for text in texts if text and not re.fullmatch(r"-?\d{1,18}(\.0+)?", text)]
    if not others:
        return [int(text.partition(".")[0]) if text else None for text in texts]
    if len(others) < sum(map(bool, texts)) and all(text.lower() in _MISSING for text in others):
        raise DataError(
            f"{where}: {others[0]!r} is among whole numbers: empty the cell of an image without a label, or name all classes"
        )
    return [text or None for text in texts]
