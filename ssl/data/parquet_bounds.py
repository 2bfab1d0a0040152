"""What a parquet file claims about itself, checked before anything of that size is allocated.

Arrow believes the footer and the headers of pages: a file of a few KB can claim 2^60 rows, or hold pages that decompress to
gigabytes. The limits here follow from the bytes that are stored.
"""

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.parquet_pages import DamagedRows, pages
from wildfern.ssl.data.steady_file import SteadyFile

MOST_FOOTER_BYTES = 256 * 2**20
MOST_ROWS = 2**20  # of a file; a file of more bytes may have as many rows as bytes
DECODED_BYTES = 2**29  # of a column in a row group
MORE = "if the file is right, set memory_gb to more, or write smaller row groups"
DECODED_PER_STORED = 8  # a larger one may decode to this many times the bytes that are stored
_MOST_RECORDS = 65_536  # of a batch


def read_metadata(file: SteadyFile) -> Any:
    """The footer; raises DataError if it is damaged, too large, or claims what the file cannot hold."""
    import pyarrow.parquet as parquet

    with file.open() as opened:
        opened.seek(max(0, file.size - 8))
        size = int.from_bytes(opened.read(8)[:4], "little")
        if MOST_FOOTER_BYTES < size < file.size:
            raise DataError(f"{file.path} has a footer of {size:,} bytes; at most {MOST_FOOTER_BYTES:,} are read")
        try:
            metadata = parquet.read_metadata(opened)
        except Exception as error:  # Arrow raises many kinds
            raise cannot_be_read(file.path, error) from error
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    most = max(MOST_ROWS, file.size)
    if min(rows, default=0) < 0 or metadata.num_rows < 0 or sum(rows) != metadata.num_rows:
        raise DataError(f"{file.path} is damaged: it claims {metadata.num_rows} rows, and its row groups {sum(rows)}")
    if metadata.num_rows > most:
        raise DataError(
            f"{file.path} is damaged: it claims {metadata.num_rows:,} rows, which do not fit into its {file.size:,} bytes"
        )
    return metadata


def read_schema(file: SteadyFile) -> Any:
    """The Arrow schema of the footer; raises DataError."""
    metadata = read_metadata(file)
    try:
        return metadata.schema.to_arrow_schema()
    except Exception as error:
        raise cannot_be_read(file.path, error) from error


def cannot_be_read(path: str, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as parquet: {first_line(error)}")


def first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line), type(error).__name__)


class TooLarge(DamagedRows):
    """The rows need more memory than is allowed: they are malicious, or simply large and well compressed."""


class _Unread(io.RawIOBase):
    """A file that cannot be read: Arrow gets as far as the footer leads."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size, self._at, self.asked = size, 0, False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = 0) -> int:
        self._at = place if whence == 0 else self._at + place if whence == 1 else self._size + place
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int = -1) -> bytes:
        self.asked = True
        raise OSError("not read")


def _check_footer(metadata: Any, size: int, groups: list[int], path: str) -> None:
    """Raise DamagedRows if Arrow finds fault with what the footer says of a column.

    Where it does, looking at the same through `metadata` ends the process (a C++ exception that pyarrow does not catch).
    """
    import pyarrow.parquet as parquet

    groups = [group for group in groups if metadata.row_group(group).num_rows]
    if not groups:
        return
    file = _Unread(size)
    try:
        reader = parquet.ParquetFile(file, metadata=metadata, pre_buffer=True)
        next(reader.iter_batches(1, row_groups=groups, columns=[path], use_threads=False), None)
    except MemoryError:
        raise
    except Exception as error:  # Arrow raises many kinds
        if not file.asked:
            raise DamagedRows(first_line(error)) from error
        # Arrow keeps what a Python file raised for good, and its traceback would keep all that its callers hold.
        error.__traceback__ = None


def check_column(file: SteadyFile, metadata: Any, path: str, least: int) -> None:
    """Raise DataError if a row group claims more bytes for this column than `most_decoded`; `path` is dotted."""
    try:
        _check_footer(metadata, file.size, list(range(metadata.num_row_groups)), path)
    except DamagedRows as error:
        raise DataError(f"{file.path} is damaged: column {path}: {error}") from error
    for group in range(metadata.num_row_groups):
        if metadata.row_group(group).num_rows:
            for chunk in _chunks(metadata, group, path):
                try:
                    _check_chunk(chunk, file.size, least)
                except DamagedRows as error:
                    more = f"; {MORE}" if isinstance(error, TooLarge) else ""
                    raise DataError(f"{file.path}: column {path} of row group {group}: {error}{more}") from error


def claimed_bytes(metadata: Any, group: int, path: str) -> int:
    """Bytes of the cells of a column in a row group, as the footer has it, which `check_column` has accepted."""
    if not metadata.row_group(group).num_rows:
        return 0
    chunks = _chunks(metadata, group, path)
    return sum(c.total_uncompressed_size if c.physical_type == "BYTE_ARRAY" else c.num_values for c in chunks)


def read_rows(reader: Any, file: BinaryIO, size: int, group: int, path: str, least: int) -> list[Any]:
    """A column of a row group, or a field of its structs, as arrays of the top-level column, one after the other.

    `reader` is the ParquetFile of `file`, which has `size` bytes. Raises DamagedRows; MemoryError for lack of memory.
    """
    _check_footer(reader.metadata, size, [group], path)
    chunks = list(_chunks(reader.metadata, group, path))
    if not chunks:
        raise DamagedRows(f"there is no column {path}")
    stored, records = 0, _MOST_RECORDS
    for chunk in chunks:
        _check_chunk(chunk, size, least)
        stored += chunk.total_compressed_size
        most = most_decoded(chunk.total_compressed_size, least)
        largest = 1
        decoded = values = 0
        for page in pages(file, _start(chunk), _start(chunk) + chunk.total_compressed_size, chunk.num_values):
            largest, decoded, values = max(largest, page.size), decoded + page.size, values + page.values
            if max(decoded, values * _width(chunk)) > most:
                raise TooLarge(f"its pages claim more than {most:,} bytes, stored in {chunk.total_compressed_size:,}")
        if (
            chunk.physical_type == "BYTE_ARRAY"
        ):  # by dictionaries and shared beginnings each row can be as large as a page
            records = min(records, max(1, least // 2 // largest))
    most, found, rows = most_decoded(stored, least), [], 0
    try:
        for batch in reader.iter_batches(records, row_groups=[group], columns=[path], use_threads=False):
            found.append(_plain(batch.column(0)))
            rows += len(batch)
            if (most := most - found[-1].nbytes) < 0:
                raise TooLarge(f"it decodes to more than {most_decoded(stored, least):,} bytes, stored in {stored:,}")
    except (DamagedRows, MemoryError):
        raise
    except Exception as error:  # Arrow raises many kinds
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedRows(first_line(error)) from error
    if rows != reader.metadata.row_group(group).num_rows:
        raise DamagedRows(f"it has {rows:,} rows instead of {reader.metadata.row_group(group).num_rows:,}")
    return found


def _plain(array: Any) -> Any:
    """The values themselves instead of a dictionary and numbers: each batch would keep the whole dictionary in memory."""
    return array.dictionary_decode() if hasattr(array, "dictionary_decode") else array


def most_decoded(stored: int, least: int) -> int:
    """Bytes that a column of a row group may have in memory: `least`, or 8 times those that are stored."""
    return max(least, DECODED_PER_STORED * stored)


def _chunks(metadata: Any, group: int, path: str) -> Iterator[Any]:
    """The stored columns of a row group that belong to a column or field."""
    row_group, schema = metadata.row_group(group), metadata.schema
    for number in range(metadata.num_columns):
        name = schema.column(number).path
        if name == path or name.startswith(f"{path}."):
            yield row_group.column(number)


def _start(chunk: Any) -> int:
    first, dictionary = chunk.data_page_offset, chunk.dictionary_page_offset
    return dictionary if chunk.has_dictionary_page and dictionary and 0 < dictionary < first else first


def _check_chunk(chunk: Any, size: int, least: int) -> None:
    stored, start, decoded = chunk.total_compressed_size, _start(chunk), chunk.total_uncompressed_size
    if min(stored, start, decoded, chunk.num_values) < 0 or start + stored > size:
        raise DamagedRows(f"it claims {stored:,} bytes at byte {start:,} of a file of {size:,} bytes")
    most = most_decoded(stored, least)
    if max(decoded, chunk.num_values * _width(chunk)) > most:
        raise TooLarge(
            f"it claims {max(decoded, chunk.num_values * _width(chunk)):,} bytes in memory, stored in {stored:,}; at most "
            f"{most:,} are possible"
        )


def _width(chunk: Any) -> int:
    """Least bytes of a value in memory, with the levels that say where lists start and what is null."""
    return {"INT64": 8, "DOUBLE": 8, "INT96": 12}.get(chunk.physical_type, 4)
