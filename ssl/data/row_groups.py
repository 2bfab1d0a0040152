"""Encoded images by row number from parquet files, within a memory budget."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from wildfern.ssl.data.base import DataError, UnreadableImage
from wildfern.ssl.data.image_column import ImageColumn
from wildfern.ssl.data.parquet_bounds import DECODED_BYTES, MORE, TooLarge, check_column, read_metadata, read_rows
from wildfern.ssl.data.parquet_pages import DamagedRows
from wildfern.ssl.data.row_files import file_below, folders_of
from wildfern.ssl.data.steady_file import SteadyFile


class RowGroups:
    """Random access to one image column of several files: the last used row groups are kept, up to `budget` bytes.

    A row is the encoded file, or None if the column has no bytes. `columns` has the image column of each file. Rows that name
    files do so relative to `image_folder`, or the folder of their parquet file, and only files below it are read.
    """

    def __init__(
        self, files: list[Path], columns: list[ImageColumn], budget: int, image_folder: Path | None = None
    ) -> None:
        self.files, self._columns, self._budget = files, columns, budget
        self._least = max(budget, DECODED_BYTES)
        self._folders = [folders_of(image_folder or file.parent) for file in files]
        self.noted = [SteadyFile.of(file) for file in files]
        self._metadata = [read_metadata(file) for file in self.noted]
        for file, metadata, column in zip(self.noted, self._metadata, columns, strict=True):
            check_column(file, metadata, f"{column.name}.{column.field}" if column.field else column.name, self._least)
        groups = [
            (f, g, m.row_group(g).num_rows) for f, m in enumerate(self._metadata) for g in range(m.num_row_groups)
        ]
        self._groups = [(file, group) for file, group, _ in groups]
        self._starts = np.cumsum([0] + [rows for _, _, rows in groups])
        self._kept: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        self._kept_bytes = 0
        self._damaged: dict[int, str] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Row groups that were read are left out, and a copy has its own lock."""
        return self.__dict__ | {"_kept": OrderedDict(), "_kept_bytes": 0, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def schemas(self) -> list[Any]:
        """The Arrow schema of each file."""
        return [metadata.schema.to_arrow_schema() for metadata in self._metadata]

    def locate(self, row: int) -> tuple[Path, int]:
        """(file, row within the file)."""
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        file = self._groups[group][0]
        first = next(g for g, (f, _) in enumerate(self._groups) if f == file)
        return self.files[file], row - int(self._starts[first])

    def __getitem__(self, row: int) -> memoryview | bytes | Path | None:
        """The encoded image, or the existing file that the row names by its path.

        Raises UnreadableImage if there is no such file, or the row group is damaged; DataError if the parquet file has changed.
        """
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        encoded, paths = self._load(group)
        place = row - int(self._starts[group])
        if encoded is not None and (value := encoded[place]).is_valid:
            return _as_bytes(value)
        if paths is not None and (path := paths[place]).is_valid:
            try:
                named = path.as_py()
            except UnicodeDecodeError:
                raise UnreadableImage("the row has no bytes, and names a file by a text that is no UTF-8") from None
            file = self._groups[group][0]
            advice = "image_folder allows another folder, the one that links lead to"
            return file_below(self._folders[file], named, advice, self.files[file].parent)
        return None

    def _load(self, group: int) -> tuple[Any, Any]:
        """(encoded images, paths) of a row group; either may be None."""
        import pyarrow.parquet as parquet

        with self._lock:
            if group in self._kept:
                self._kept.move_to_end(group)
                return self._kept[group]
            if group in self._damaged:
                raise UnreadableImage(self._damaged[group])
            file, number = self._groups[group]
            column, noted = self._columns[file], self.noted[file]
            try:
                with noted.open() as opened:
                    reader = parquet.ParquetFile(opened, metadata=self._metadata[file])
                    encoded = self._read(reader, opened, noted.size, number, column.name, column.field)
                    needs_paths = column.path_field is not None and (encoded is None or encoded.null_count)
                    paths = None
                    if needs_paths:
                        paths = self._read(reader, opened, noted.size, number, column.name, column.path_field)
            except DamagedRows as error:
                more = f"; {MORE}" if isinstance(error, TooLarge) else ""
                self._damaged[group] = f"row group {number} is damaged: {error}{more}"
                raise UnreadableImage(self._damaged[group]) from error
            except OSError as error:
                raise DataError(f"{noted.path} cannot be read: {error.strerror}") from error
            except MemoryError as error:
                raise DataError(
                    f"{noted.path}: there is not enough memory to read row group {number}: {error}"
                ) from error
            self._kept[group] = encoded, paths
            self._kept_bytes += _nbytes(encoded, paths)
            while self._kept_bytes > self._budget and len(self._kept) > 1:
                self._kept_bytes -= _nbytes(*self._kept.popitem(last=False)[1])
            return encoded, paths

    def _read(self, reader: Any, file: Any, size: int, group: int, column: str, field: str | None) -> Any:
        """A column of a row group, or a field of its structs; None for a column of structs without a field of this name."""
        import pyarrow as pa
        import pyarrow.compute as compute
        import pyarrow.types as types

        if not types.is_struct(reader.schema_arrow.field(column).type):
            return pa.chunked_array(read_rows(reader, file, size, group, column, self._least))
        if field is None:
            return None
        arrays = read_rows(reader, file, size, group, f"{column}.{field}", self._least)
        return pa.chunked_array([compute.struct_field(array, field) for array in arrays])


def _nbytes(*arrays: Any) -> int:
    return sum(array.nbytes for array in arrays if array is not None)


def _as_bytes(value: Any) -> memoryview | bytes:
    if hasattr(value, "as_buffer"):
        return memoryview(value.as_buffer())
    if (values := getattr(value, "values", None)) is not None:  # a list of uint8
        return values.fill_null(0).to_numpy(zero_copy_only=False).tobytes()
    encoded: bytes = value.as_py()
    return encoded
