"""`hf:NAME`: a dataset of the Hugging Face hub, through the optional package `datasets`."""

import os
from typing import Any

import numpy as np

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Split, UnreadableImage
from wildfern.ssl.data.image_file import Bands, Decoding, File, Percentiles, ValueRange
from wildfern.ssl.data.image_source import ImageSource

_SPLIT_NAMES = {"train": ("train",), "test": ("test", "validation", "val")}


@register("source", "hf")
class HuggingFaceSource(ImageSource):
    """Images of `datasets.load_dataset(name)`, which downloads the dataset to its own cache on first use.

    split: "test" falls back on validation or val. config, revision: as in load_dataset.
    image_column: None takes the only image column. label_column: None, or a column that does not exist: unlabeled.
    max_side, bands, value_range, percentiles: how the images are read; see `Decoding`.
    """

    def __init__(
        self,
        name: str,
        split: Split = "train",
        *,
        config: str | None = None,
        revision: str | None = None,
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
        part = next((part for part in _SPLIT_NAMES[split] if part in parts), None)
        if part is None:
            raise DataError(f"hf:{name} has no {split} split; it has {', '.join(parts)}")
        table = parts[part]
        images = [column for column, feature in table.features.items() if isinstance(feature, datasets.Image)]
        self._column = image_column or (images[0] if len(images) == 1 else None)
        if self._column not in images:
            columns = ", ".join(table.features)
            raise DataError(f"hf:{name}: set image_column to one of {images or 'none'} (columns: {columns})")
        labels, names = None, None
        if label_column in table.features:
            feature = table.features[label_column]
            if not isinstance(feature, datasets.ClassLabel):
                table = table.class_encode_column(label_column)
                feature = table.features[label_column]
            labels, names = np.asarray(table[label_column], np.int64), list(feature.names)
        elif label_column not in (None, "label"):
            raise DataError(f"hf:{name}: no label column {label_column!r}; it has {', '.join(table.features)}")
        decoding = Decoding(max_side, 1, bands, value_range, percentiles)
        super().__init__(len(table), labels, names, decoding)
        self._table = table.cast_column(self._column, datasets.Image(decode=False)).select_columns([self._column])
        self._name = f"hf:{name} {part}"

    def item_name(self, item: int) -> str:
        return f"{self._name} {item}"

    def encoded(self, item: int) -> File:
        cell: dict[str, Any] = self._table[item][self._column]
        if cell is None or (cell["bytes"] is None and not (cell["path"] and os.path.isfile(cell["path"]))):
            raise UnreadableImage("the row has no image")
        return cell["bytes"] if cell["bytes"] is not None else cell["path"]
