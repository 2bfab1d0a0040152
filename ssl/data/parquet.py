"""`parquet:PATH`: images in parquet files in the Hugging Face layout: image{bytes, path}, label."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Split, UnreadableImage
from wildfern.ssl.data.image_file import Bands, Decoding, File, Percentiles, ValueRange
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.row_groups import RowGroups, holds_images

_SPLIT_NAMES = {"train": ("train",), "test": ("test", "validation", "val")}


@register("source", "parquet")
class ParquetSource(ImageSource):
    """Rows of SPLIT.parquet or SPLIT-*.parquet in the folder `path` (or its folder data), or of the single file `path`.

    split: "test" falls back on files named validation or val; a single file has only "train".
    image_column: binary, or a struct with the field bytes. label_column: integers or names; None, or a column that does not
        exist: unlabeled.
    max_side, bands, value_range, percentiles: how the images are read; see `Decoding`.
    memory_gb: keep the encoded column in memory up to this size. A larger one is read by row groups, of which the last used are
        kept; this is slow in random order: unpack such a dataset into a folder, or write it as webdataset shards.
    """

    def __init__(
        self,
        path: str,
        split: Split = "train",
        *,
        image_column: str = "image",
        label_column: str | None = "label",
        max_side: int | None = None,
        bands: Bands | None = None,
        value_range: ValueRange | None = None,
        percentiles: Percentiles | None = None,
        memory_gb: float = 0.5,
    ) -> None:
        given = Path(path).expanduser()
        files = split_files(given, split)
        if not files:
            raise DataError(_no_files(given, split))
        schemas = [_schema(file) for file in files]
        for file, schema in zip(files, schemas, strict=True):
            _check_columns(schema, file, image_column, label_column)
        self._rows = RowGroups(files, image_column, int(memory_gb * 2**30))
        if not len(self._rows):
            raise DataError(f"no rows in {', '.join(map(str, files[:3]))}")
        labels, names = None, None
        if label_column is not None and all(label_column in schema.names for schema in schemas):
            names = _feature_names(schemas[0], label_column)
            parts = {split: files}
            if names is None:  # a class has the same number in both splits, so read both
                for other in _SPLIT_NAMES.keys() - {split}:
                    parts[other] = [f for f in split_files(given, other) if label_column in _schema(f).names]
            labels, names = read_labels(parts, split, label_column, names)
        decoding = Decoding(max_side, 1, bands, value_range, percentiles)
        super().__init__(len(self._rows), labels, names, decoding)

    def item_name(self, item: int) -> str:
        file, row = self._rows.locate(item)
        return f"{file} row {row}"

    def encoded(self, item: int) -> File:
        encoded = self._rows[item]
        if encoded is None:
            raise UnreadableImage("the row has no bytes")
        return encoded


def split_files(path: Path, split: str) -> list[Path]:
    """The sorted parquet files of one split; empty for the test split of a single file."""
    if path.is_file():
        return [path] if split == "train" else []
    for name in _SPLIT_NAMES[split]:
        for folder in (path, path / "data"):
            files = [*folder.glob(f"{name}.parquet"), *folder.glob(f"{name}-*.parquet")]
            if files:
                return sorted(files)
    return []


def read_labels(
    files: dict[str, list[Path]], split: str, column: str, names: list[str] | None
) -> tuple[NDArray[np.int64], list[str]]:
    """Labels of one split, -1 where missing, and the class names, which are the same for every split."""
    raw = {part: [v for file in group for v in _column(file, column)] for part, group in files.items()}
    known = {value for values in raw.values() for value in values if value is not None}
    if all(isinstance(value, int) for value in known):
        names = names or [str(label) for label in range(max(known, default=-1) + 1)]
        labels = np.array([-1 if v is None else v for v in raw[split]], np.int64)
        if labels.max(initial=-1) >= len(names) or labels.min(initial=0) < -1:
            raise DataError(
                f"column {column}: labels from {labels.min()} to {labels.max()}, but {len(names)} class names"
            )
        return labels, names
    if not all(isinstance(value, str) for value in known):
        raise DataError(f"column {column} holds {type(next(iter(known))).__name__}; labels must be integers or names")
    names = sorted(known)
    number = {name: label for label, name in enumerate(names)}
    return np.array([-1 if v is None else number[v] for v in raw[split]], np.int64), names


def _schema(file: Path) -> Any:
    import pyarrow.parquet as parquet

    with _parquet_errors(file):
        return parquet.read_schema(file)


def _column(file: Path, column: str) -> list:
    import pyarrow.parquet as parquet

    with _parquet_errors(file):
        return parquet.ParquetFile(file).read([column]).column(0).to_pylist()


@contextmanager
def _parquet_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # Arrow raises these
        raise DataError(f"{file} cannot be read as parquet: {error}") from error


def _check_columns(schema: Any, file: Path, image_column: str, label_column: str | None) -> None:
    columns = ", ".join(schema.names)
    if image_column not in schema.names or not holds_images(schema.field(image_column).type):
        likely = [f.name for f in schema if holds_images(f.type)]
        hint = f"; image_column could be {' or '.join(likely)}" if likely else ""
        raise DataError(f"{file}: no column {image_column!r} with encoded images; it has {columns}{hint}")
    if label_column not in (None, "label") and label_column not in schema.names:
        raise DataError(f"{file}: no label column {label_column!r}; it has {columns}")


def _feature_names(schema: Any, column: str) -> list[str] | None:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return list(features[column]["names"])
    except (KeyError, TypeError, ValueError):  # optional metadata; without it classes are named by number
        return None


def _no_files(path: Path, split: str) -> str:
    if path.is_file():
        return f"{path} is a single file and has no {split} split; give the folder with train.parquet and test.parquet"
    if not path.is_dir():
        parent = next(p for p in path.absolute().parents if p.is_dir())
        return f"{path} does not exist ({parent} exists)"
    seen = sorted(p.name for p in path.glob("*.parquet"))[:5]
    names = " or ".join(f"{name}.parquet, {name}-*.parquet" for name in _SPLIT_NAMES[split])
    return f"no {names} in {path}; it has {', '.join(seen) or 'no parquet files'}"
