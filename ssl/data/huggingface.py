"""`hf:NAME`: a dataset of the Hugging Face hub, through the optional package `datasets`."""

import os
from typing import Any

import numpy as np

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Split, UnreadableImage
from wildfern.ssl.data.image_file import Bands, Decoding, File, Percentiles, ValueRange
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.labels import Numbered, number_labels
from wildfern.ssl.data.row_files import file_below
from wildfern.ssl.data.splits import ROLES, SPLIT_NAMES, rows_of_split, share_words


@register("source", "hf")
class HuggingFaceSource(ImageSource):
    """Images of `datasets.load_dataset(name)`, which downloads the dataset to its own cache on first use.

    split: train or training; for test: test, testing or eval, else validation, valid, val or dev. config, revision: as in
        load_dataset. test_fraction: without a test split, this share of the rows, chosen by a hash of their number, is one.
    image_column: None takes the only image column. label_column: integers, names, or lists of either for several classes; None,
        or no column of the default name: unlabeled. It is read when labels are needed.
    max_side, bands, value_range, percentiles: how the images are read; see `Decoding`.

    Rows may name files below the caches of `datasets`, or below `name` if that is a folder; others are not read.
    """

    def __init__(
        self,
        name: str,
        split: Split = "train",
        *,
        config: str | None = None,
        revision: str | None = None,
        test_fraction: float = 0.0,
        image_column: str | None = None,
        label_column: str | None = "label",
        max_side: int | None = None,
        bands: Bands | None = None,
        value_range: ValueRange | None = None,
        percentiles: Percentiles | None = None,
    ) -> None:
        try:
            import datasets
        except ImportError as error:
            message = f"hf:{name} needs the package datasets, which is not installed: pip install 'wildfern[hf]'"
            raise DataError(message) from error
        try:
            parts = datasets.load_dataset(name, config, revision=revision)
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"hf:{name} cannot be loaded: {error}") from error
        part, test = _part(parts, split), _part(parts, "test")
        by_hash = test is None and test_fraction > 0
        if by_hash:
            part = _part(parts, "train")
        if part is None:
            raise DataError(f"hf:{name} has no {split} split; it has {', '.join(parts)}")
        table = parts[part]
        images = [column for column, feature in table.features.items() if isinstance(feature, datasets.Image)]
        self._column = image_column or (images[0] if len(images) == 1 else None)
        if self._column not in images:
            columns = ", ".join(table.features)
            raise DataError(f"hf:{name}: set image_column to one of {images or 'none'} (columns: {columns})")
        if label_column not in (None, "label", *table.features):
            raise DataError(f"hf:{name}: no label column {label_column!r}; it has {', '.join(table.features)}")
        decoding = Decoding(max_side, 1, bands, value_range, percentiles)
        self._items = rows_of_split(len(table), split, test_fraction) if by_hash else np.arange(len(table))
        super().__init__(len(self._items), decoding=decoding)
        self.split_words = f"split {part}" + (
            f", {share_words(split, test_fraction, 'rows, by a hash of their number')}" if by_hash else ""
        )
        self._table = table.cast_column(self._column, datasets.Image(decode=False)).select_columns([self._column])
        self._label_tables = [
            parts[p].select_columns([label_column])
            for p in dict.fromkeys((part, *(q for q in (test, _part(parts, "train")) if q is not None)))
            if label_column in parts[p].features
        ]
        self._label_column = label_column if label_column in table.features else None
        self._name = f"hf:{name} {part}"
        caches = ("HF_CACHE_HOME", "HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH", "HF_HUB_CACHE")
        folders = [str(folder) for key in caches if (folder := getattr(datasets.config, key, None))]
        self._folders = [os.path.realpath(folder) for folder in [*folders, *([name] if os.path.isdir(name) else [])]]

    def item_name(self, item: int) -> str:
        return f"{self._name} {self._items[item]}"

    def encoded(self, item: int) -> File:
        cell: dict[str, Any] | None = self._table[int(self._items[item])][self._column]
        if cell is None or (cell["bytes"] is None and not cell["path"]):
            raise UnreadableImage("the row has no image")
        return cell["bytes"] if cell["bytes"] is not None else file_below(self._folders, cell["path"])

    def load_labels(self) -> Numbered:
        """Also reads those of the other split, so that a class has the same number in both."""
        column = self._label_column
        if column is None:
            return None, None
        feature, names = self._label_tables[0].features[column], None
        while names is None and feature is not None:
            names = getattr(feature, "names", None)
            feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        mine = list(self._label_tables[0][column])
        others = [v for table in self._label_tables[1:] for v in table[column]] if names is None else []
        numbers, class_names = number_labels(mine, others, f"{self._name}: column {column}", names)
        return None if numbers is None else numbers[self._items], class_names


def _part(parts: Any, split: str) -> str | None:
    """The name, in any case, of a split of the dataset."""
    by_name = {part.lower(): part for part in parts}
    names = (name for role in ROLES[split] for name in SPLIT_NAMES[role])
    return next((by_name[name] for name in names if name in by_name), None)
