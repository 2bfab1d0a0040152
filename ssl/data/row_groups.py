"""Encoded images by row number from parquet files, within a memory budget."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np


class RowGroups:
    """Random access to one image column of several files: the last used row groups are kept, up to `budget` bytes.

    A row is the encoded file, or None if the column has no bytes. The column is binary, or a struct with a field `bytes`.
    """

    def __init__(self, files: list[Path], column: str, budget: int) -> None:
        import pyarrow.parquet as parquet

        self.files, self._column, self._budget = files, column, budget
        self._metadata = [parquet.read_metadata(file) for file in files]
        groups = [
            (f, g, m.row_group(g).num_rows) for f, m in enumerate(self._metadata) for g in range(m.num_row_groups)
        ]
        self._groups = [(file, group) for file, group, _ in groups]
        self._starts = np.cumsum([0] + [rows for _, _, rows in groups])
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def locate(self, row: int) -> tuple[Path, int]:
        """(file, row within the file)."""
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        file = self._groups[group][0]
        first = next(g for g, (f, _) in enumerate(self._groups) if f == file)
        return self.files[file], row - int(self._starts[first])

    def __getitem__(self, row: int) -> memoryview | None:
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        value = self._load(group)[row - int(self._starts[group])]
        return memoryview(value.as_buffer()) if value.is_valid else None

    def _load(self, group: int) -> Any:
        import pyarrow.parquet as parquet

        with self._lock:
            if group in self._kept:
                self._kept.move_to_end(group)
                return self._kept[group]
            file, number = self._groups[group]
            reader = parquet.ParquetFile(self.files[file], metadata=self._metadata[file])
            nested = _has_bytes_field(reader.schema_arrow.field(self._column).type)
            name = f"{self._column}.bytes" if nested else self._column
            values = reader.read_row_group(number, columns=[name], use_threads=False).column(0)
            if nested:
                values = values.flatten()[0]
            self._kept[group] = values
            self._kept_bytes += values.nbytes
            while self._kept_bytes > self._budget and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
            return values


def holds_images(column_type: Any) -> bool:
    """Whether an Arrow type can be an image column: binary, or a struct with a binary field `bytes`."""
    import pyarrow.types as types

    if _has_bytes_field(column_type):
        column_type = column_type.field("bytes").type
    return types.is_binary(column_type) or types.is_large_binary(column_type)


def _has_bytes_field(column_type: Any) -> bool:
    import pyarrow.types as types

    return types.is_struct(column_type) and column_type.get_field_index("bytes") >= 0
