"""Encoded images by row number from parquet files, within a memory budget."""

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from wildfern.ssl.data.base import UnreadableImage
from wildfern.ssl.data.image_column import ImageColumn


class RowGroups:
    """Random access to one image column of several files: the last used row groups are kept, up to `budget` bytes.

    A row is the encoded file, or None if the column has no bytes. `columns` has the image column of each file.
    """

    def __init__(self, files: list[Path], columns: list[ImageColumn], budget: int) -> None:
        import pyarrow.parquet as parquet

        self.files, self._columns, self._budget = files, columns, budget
        self._metadata = [parquet.read_metadata(file) for file in files]
        groups = [
            (f, g, m.row_group(g).num_rows) for f, m in enumerate(self._metadata) for g in range(m.num_row_groups)
        ]
        self._groups = [(file, group) for file, group, _ in groups]
        self._starts = np.cumsum([0] + [rows for _, _, rows in groups])
        self._kept: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Row groups that were read are left out, and a copy has its own lock."""
        return self.__dict__ | {"_kept": OrderedDict(), "_kept_bytes": 0, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __len__(self) -> int:
        return int(self._starts[-1])

    def locate(self, row: int) -> tuple[Path, int]:
        """(file, row within the file)."""
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        file = self._groups[group][0]
        first = next(g for g, (f, _) in enumerate(self._groups) if f == file)
        return self.files[file], row - int(self._starts[first])

    def __getitem__(self, row: int) -> memoryview | bytes | Path | None:
        """The encoded image, or the existing file that the row names by its path, relative to the parquet file's folder.

        Raises UnreadableImage if there is no such file.
        """
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        encoded, paths = self._load(group)
        place = row - int(self._starts[group])
        if encoded is not None and (value := encoded[place]).is_valid:
            return _as_bytes(value)
        if paths is not None and (path := paths[place]).is_valid:
            file = self.files[self._groups[group][0]].parent / os.path.expanduser(path.as_py())
            if not file.is_file():
                raise UnreadableImage(f"the row has no bytes, and there is no file {file}")
            return file
        return None

    def _load(self, group: int) -> tuple[Any, Any]:
        """(encoded images, paths) of a row group; either may be None."""
        import pyarrow.parquet as parquet

        with self._lock:
            if group in self._kept:
                self._kept.move_to_end(group)
                return self._kept[group]
            file, number = self._groups[group]
            column = self._columns[file]
            reader = parquet.ParquetFile(self.files[file], metadata=self._metadata[file])
            encoded = _read(reader, number, column.name, column.field)
            needs_paths = column.path_field is not None and (encoded is None or encoded.null_count)
            paths = _read(reader, number, column.name, column.path_field) if needs_paths else None
            self._kept[group] = encoded, paths
            self._kept_bytes += _nbytes(encoded, paths)
            while self._kept_bytes > self._budget and len(self._kept) > 1:
                self._kept_bytes -= _nbytes(*self._kept.popitem(last=False)[1])
            return encoded, paths


def _read(reader: Any, group: int, column: str, field: str | None) -> Any:
    """A column of a row group, or a field of its structs; None for a column of structs without a field of this name."""
    import pyarrow.compute as compute
    import pyarrow.types as types

    if types.is_struct(reader.schema_arrow.field(column).type):
        if field is None:
            return None
        values = reader.read_row_group(group, columns=[f"{column}.{field}"], use_threads=False).column(column)
        return compute.struct_field(values, field)
    return reader.read_row_group(group, columns=[column], use_threads=False).column(column)


def _nbytes(*arrays: Any) -> int:
    return sum(array.nbytes for array in arrays if array is not None)


def _as_bytes(value: Any) -> memoryview | bytes:
    if hasattr(value, "as_buffer"):
        return memoryview(value.as_buffer())
    if (values := getattr(value, "values", None)) is not None:  # a list of uint8
        return values.fill_null(0).to_numpy(zero_copy_only=False).tobytes()
    encoded: bytes = value.as_py()
    return encoded
