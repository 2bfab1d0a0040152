"""An unpacked copy of an encoded column: one file, in which every cell is found by its row and read alone.

The file begins with its index, little-endian: int64 0, and for each row uint32, a CRC-32, and int64, 4 × the byte at which its
cell ends + its kind. The bytes of all cells follow, one after the other; bytes are counted from the first of them. The CRC-32 is
that of the number of the row, the int64 before it and its own, all as int64, and the bytes of the cell.
"""

import os
import struct
import threading
import zlib
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from errno import EIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from wildfern.files import open_reading, replacing
from wildfern.ssl.data.copy_folder import mark_in_use

NULL, ENCODED, NAME, NOT_COPIED = range(4)  # the kinds of cells
_ENTRY, _BUFFER = 12, 2**20  # bytes
_ENTRIES = struct.Struct("<qIq")  # the end of the row before, and the entry of a row
_PLACE = struct.Struct("<3q")
_WRITTEN = np.dtype([("sum", "<u4"), ("end", "<i8")])


class Cell(NamedTuple):
    """What a row holds: nothing, an encoded image, or the path of an image file; `NOT_COPIED` if it could not be read."""

    kind: int
    content: bytes | memoryview = b""


class TooLong(Exception):
    """The copy would have more bytes than it may have."""


class DamagedCell(OSError):
    """A cell is not as it was when it was written."""


class ColumnCopy:
    """A file of `write_copy`, open for reading by any number of threads. Use `open_copy`."""

    def __init__(self, path: Path, file: BinaryIO, rows: int) -> None:
        self.path, self._file, self._rows = path, file, rows
        self._lock = threading.Lock()
        status = os.fstat(file.fileno())
        self.size, self.file_number = status.st_size, status.st_ino
        self._first = index_size(rows)

    def __del__(self) -> None:
        self._file.close()  # no thread reads it any more

    def __getitem__(self, row: int) -> Cell:
        """The cell of this row, in [0, rows). Raises DamagedCell, and OSError if it cannot be read."""
        before, noted, entry = _ENTRIES.unpack(self._read(_ENTRY * row, _ENTRIES.size))
        begin, end = before >> 2, entry >> 2
        if 0 <= begin <= end <= self.size - self._first:
            content = self._read(self._first + begin, end - begin)
            if _checksum(row, before, entry, content) == noted:
                return Cell(entry & 3, content)
        raise DamagedCell(EIO, f"row {row} is damaged", os.fspath(self.path))

    def is_whole(self) -> bool:
        """Whether the file ends where its last cell does. Raises OSError if it cannot be read."""
        if self.size < self._first:
            return False
        (end,) = struct.unpack("<q", self._read(_ENTRY * self._rows, 8))
        return end >> 2 == self.size - self._first

    def _read(self, place: int, count: int) -> bytes:
        # Not mapped into memory: there a fault of the disk ends the process.
        if hasattr(os, "pread"):
            content = os.pread(self._file.fileno(), count, place)
            while 0 < len(content) < count:  # the system reads 2 GiB at most at once
                if not (more := os.pread(self._file.fileno(), count - len(content), place + len(content))):
                    break
                content += more
        else:
            with self._lock:
                self._file.seek(place)
                content = self._file.read(count)
        if len(content) != count:
            raise DamagedCell(EIO, f"ends within the {count:,} bytes at byte {place:,}", os.fspath(self.path))
        return content


def index_size(rows: int) -> int:
    """Bytes of a file before those of its cells."""
    return 8 + _ENTRY * rows


def _checksum(row: int, before: int, entry: int, content: bytes | memoryview) -> int:
    """CRC-32 of a cell and of where it is, so that a damaged entry is noticed too."""
    return zlib.crc32(content, zlib.crc32(_PLACE.pack(row, before, entry)))


def open_copy(path: Path, rows: int) -> ColumnCopy | None:
    """The copy at `path`, marked as used now and in use; None if there is none of `rows` rows."""
    try:
        file = open_reading(path)
    except OSError:
        return None
    try:
        copy = ColumnCopy(path, file, rows)
        if copy.is_whole():
            mark_in_use(file)
            with suppress(OSError):  # of another user
                os.utime(path)
            return copy
    except OSError:
        pass
    file.close()
    return None


def write_copy(path: Path, groups: Iterable[Iterable[Cell]], rows: int, expected: int, most: float) -> None:
    """Write all cells, of `rows` rows, as a file of about `expected` bytes; what was at `path` is replaced as a whole.

    Raises TooLong for more than `most` bytes, OSError if the file cannot be written.
    """
    first = place = index_size(rows)
    row = before = 0
    with ExitStack() as until_renamed, replacing(path) as beside:
        if os.name == "posix":  # elsewhere an open file is not deleted, and not renamed
            mark_in_use(until_renamed.enter_context(open_reading(beside)))
        with open(beside, "r+b", _BUFFER) as file:
            file.truncate(max(first, expected))  # shows others how much room it needs
            for group in groups:
                entries: list[tuple[int, int]] = []
                file.seek(place)
                for cell in group:
                    place += file.write(cell.content)
                    entry = 4 * (place - first) + cell.kind
                    entries.append((_checksum(row + len(entries), before, entry, cell.content), entry))
                    before = entry
                    if place > most:
                        raise TooLong
                file.seek(index_size(row))
                file.write(np.array(entries, _WRITTEN).tobytes())
                row += len(entries)
            file.truncate(place)
