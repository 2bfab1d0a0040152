"""Columns of the manifest as arrays, for the rules."""

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wildfern.ssl.curation.manifest import SMALL

# What the rules read; all of it is in memory, a few hundred bytes an image.
COLUMNS = [
    *("source", "container", "path", "bytes", "sha256", "pixels_sha256", "width", "height", "format", "frames"),
    *("fault", "fault_detail", "contrast", "dark_percentile", "light_percentile", "sharpness", "page", "screenshot"),
    *("phash", "phash_quality", "author", "license", "license_text", "optout", "album", "people", "people_boxes"),
    "people_checked",
]


class ImageTable:
    """The columns `COLUMNS` of all images. `read_small(images int64[n])` gives their small versions, uint8[n, 16, 16, 3]."""

    def __init__(self, table: pa.Table, read_small: Callable[[NDArray[np.int64]], NDArray[np.uint8]]) -> None:
        self._table, self.read_small = table, read_small

    def with_columns(self, columns: Mapping[str, pa.Array]) -> "ImageTable":
        """The same with other columns of these names."""
        table = self._table
        for name, column in columns.items():
            table = table.set_column(table.schema.get_field_index(name), name, column)
        return ImageTable(table, self.read_small)

    def column(self, name: str, start: int, count: int) -> pa.ChunkedArray:
        """`count` rows of a column, from `start`."""
        return self._table.column(name).slice(start, count)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def numbers(self, column: str) -> NDArray[np.float64]:
        """float64[N], NaN where there is no value."""
        return self._table.column(column).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)

    def texts(self, column: str) -> list[str | None]:
        return self._table.column(column).cast(pa.string()).to_pylist()

    def codes(self, column: str) -> NDArray[np.int64]:
        """int64[N]: equal numbers for equal texts, -1 where there is none."""
        texts = self._table.column(column).combine_chunks()
        if isinstance(texts, pa.ChunkedArray):  # of an empty table
            return np.zeros(0, np.int64)
        encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
        return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

    def text(self, column: str, image: int) -> str | None:
        return self._table.column(column)[image].as_py()

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """uint64[N], 0 for images that cannot be read."""
        return self._table.column("phash").fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64)

    @property
    def readable(self) -> NDArray[np.bool_]:
        return np.array(self._table.column("pixels_sha256").is_valid().to_numpy(zero_copy_only=False), bool)


def as_small(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """The column `small` as uint8[n, 16, 16, 3]; black where there is none."""
    black = bytes(3 * SMALL * SMALL)
    joined = b"".join(black if value is None else value for value in column.to_pylist())
    return np.frombuffer(joined, np.uint8).reshape(-1, SMALL, SMALL, 3)
