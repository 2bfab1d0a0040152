"""Encoded images by row number from parquet files, within a memory budget."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.base import DataError, UnreadableImage
from wildfern.ssl.data.column_copy import ENCODED, NAME, NULL, Cell
from wildfern.ssl.data.image_column import ImageColumn
from wildfern.ssl.data.parquet_bounds import (
    DECODED_BYTES,
    MORE,
    TooLarge,
    check_column,
    claimed_bytes,
    read_metadata,
    read_rows,
)
from wildfern.ssl.data.parquet_pages import DamagedRows
from wildfern.ssl.data.row_files import file_below, folders_of
from wildfern.ssl.data.steady_file import SteadyFile


class RowGroups:
    """Random access to one image column of several files: the last used row groups are kept, up to `budget` bytes.

    A row is the encoded file, or None if the column has no bytes. `columns` has the image column of each file. Rows that name
    files do so relative to `image_folder`, or the folder of their parquet file, and only files below it are read.

    Any number of threads may read. Row groups are decoded at the same time as far as they fit into the budget, or else 512 MiB.
    With `window`, which may be set at any time, row groups that together have that number of rows are kept beyond the budget.
    """

    def __init__(
        self,
        files: Sequence[Path | SteadyFile],
        columns: list[ImageColumn],
        budget: int,
        image_folder: Path | None = None,
    ) -> None:
        self.files, self._columns, self._budget = files, columns, budget
        self.window = 0
        self._least = max(budget, DECODED_BYTES)
        self._folders = [folders_of(image_folder or file.parent) for file in files]
        self.noted = [SteadyFile.of(file) for file in files]
        self._metadata = [read_metadata(file) for file in self.noted]
        paths = [f"{column.name}.{column.field}" if column.field else column.name for column in columns]
        for file, metadata, path in zip(self.noted, self._metadata, paths, strict=True):
            check_column(file, metadata, path, self._least)
        self._groups = [(f, g) for f, metadata in enumerate(self._metadata) for g in range(metadata.num_row_groups)]
        rows = [self._metadata[file].row_group(group).num_rows for file, group in self._groups]
        self.starts: NDArray[np.int64] = np.cumsum([0, *rows], dtype=np.int64)
        self._most_rows = max(rows, default=0)
        self._file_starts = np.cumsum([0, *(metadata.num_rows for metadata in self._metadata[:-1])])
        self._sizes = [claimed_bytes(self._metadata[file], group, paths[file]) for file, group in self._groups]
        self._damaged: dict[int, str] = {}
        self._begin()

    def _begin(self) -> None:
        """Nothing is kept or being decoded."""
        self._lock, self._room = threading.Lock(), threading.Condition()
        self._decoding: dict[int, Future[tuple[Any, Any]]] = {}
        self._decoding_bytes = 0
        self._kept: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        self._kept_bytes = self._kept_rows = 0
        self.decoded = 0  # row groups, so far
        self.dropped = False  # whether the budget was exceeded

    def __getstate__(self) -> dict[str, Any]:
        """Row groups that were read are left out, and a pickled copy has its own locks."""
        own = ("_lock", "_room", "_decoding", "_kept")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def schemas(self) -> list[Any]:
        """The Arrow schema of each file."""
        return [metadata.schema.to_arrow_schema() for metadata in self._metadata]

    def locate(self, row: int) -> tuple[Path | SteadyFile, int]:
        """(file, row within the file)."""
        file = self._file_of(row)
        return self.files[file], row - int(self._file_starts[file])

    def _file_of(self, row: int) -> int:
        return int(np.searchsorted(self._file_starts, row, "right")) - 1

    def __getitem__(self, row: int) -> memoryview | bytes | Path | None:
        """The encoded image, or the existing file that the row names by its path.

        Raises UnreadableImage if there is no such file, or the row group is damaged; DataError if the parquet file has changed.
        """
        kind, content = self.cell(row)
        if kind == NULL:
            return None
        if kind == ENCODED:
            return content
        try:
            named = bytes(content).decode()
        except UnicodeDecodeError:
            raise UnreadableImage("the row has no bytes, and names a file by a text that is no UTF-8") from None
        file = self._file_of(row)
        advice = "image_folder allows another folder, the one that links lead to"
        return file_below(self._folders[file], named, advice, self.files[file].parent)

    def cell(self, row: int) -> Cell:
        """What is stored in the row; raises UnreadableImage and DataError like reading it."""
        group = int(np.searchsorted(self.starts, row, "right")) - 1
        return _cell_of(self._load(group), row - int(self.starts[group]))

    def cells(self, group: int) -> Iterator[Cell]:
        """The cells of a row group, which is not kept; raises UnreadableImage, before the first one, and DataError."""
        arrays = self._decode(group)
        return (_cell_of(arrays, place) for place in range(self._rows_of(group)))

    def _load(self, group: int) -> tuple[Any, Any]:
        """(encoded images, paths) of a row group; either may be None. Threads that need the same one wait for one decoding."""
        with self._lock:
            if group in self._kept:
                self._kept.move_to_end(group)
                return self._kept[group]
            if group in self._damaged:
                raise UnreadableImage(self._damaged[group])
            others = self._decoding.get(group)
            if others is None:
                own = self._decoding[group] = Future()
        if others is not None:
            return others.result()
        try:
            arrays = self._decode(group)
        except BaseException as error:
            with self._lock:
                del self._decoding[group]
            own.set_exception(error)
            raise
        with self._lock:
            del self._decoding[group]
            self._keep(group, arrays)
        own.set_result(arrays)
        return arrays

    def _keep(self, group: int, arrays: tuple[Any, Any]) -> None:
        """Keep a decoded row group instead of those that were not used for longest."""
        self.decoded += 1
        self._kept[group] = arrays
        self._kept_bytes += _nbytes(*arrays)
        self._kept_rows += self._rows_of(group)
        # A window begins and ends within a row group.
        window = self.window + 2 * self._most_rows if self.window else 0
        while self._kept_bytes > self._budget and len(self._kept) > 1:
            oldest = next(iter(self._kept))
            if self._kept_rows - self._rows_of(oldest) < window:
                break
            self._kept_bytes -= _nbytes(*self._kept.pop(oldest))
            self._kept_rows -= self._rows_of(oldest)
            self.dropped = True

    def drop_kept(self) -> None:
        """Free the memory of the row groups that are kept."""
        with self._lock:
            self._kept.clear()
            self._kept_bytes = self._kept_rows = 0

    def _rows_of(self, group: int) -> int:
        return int(self.starts[group + 1] - self.starts[group])

    @contextmanager
    def _room_for(self, group: int) -> Iterator[None]:
        """Wait until a row group fits beside those that are being decoded, by what their files claim; one alone always fits."""
        size = self._sizes[group]
        with self._room:
            self._room.wait_for(lambda: not self._decoding_bytes or self._decoding_bytes + size <= self._least)
            self._decoding_bytes += size
        try:
            yield
        finally:
            with self._room:
                self._decoding_bytes -= size
                self._room.notify_all()

    def _decode(self, group: int) -> tuple[Any, Any]:
        import pyarrow.parquet as parquet

        file, number = self._groups[group]
        column, noted = self._columns[file], self.noted[file]
        try:
            with self._room_for(group), noted.open() as opened:
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
            raise DataError(f"{noted.path}: there is not enough memory to read row group {number}: {error}") from error
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


def _cell_of(arrays: tuple[Any, Any], place: int) -> Cell:
    encoded, paths = arrays
    if encoded is not None and (value := encoded[place]).is_valid:
        return Cell(ENCODED, _as_bytes(value))
    if paths is not None and (path := paths[place]).is_valid:
        return Cell(NAME, memoryview(path.as_buffer()))
    return Cell(NULL)


def _as_bytes(value: Any) -> memoryview | bytes:
    if hasattr(value, "as_buffer"):
        return memoryview(value.as_buffer())
    if (values := getattr(value, "values", None)) is not None:  # a list of uint8
        return values.fill_null(0).to_numpy(zero_copy_only=False).tobytes()
    encoded: bytes = value.as_py()
    return encoded
