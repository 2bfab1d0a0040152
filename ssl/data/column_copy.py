"""An unpacked copy of an encoded column: one file, in which every cell is found by its row and read alone.

The file begins with int64[rows + 1], little-endian: 0, and for each row 4 × the byte at which its cell ends + its kind. The
bytes of all cells follow, one after the other; bytes are counted from the first of them.
"""

import os
import struct
import threading
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from errno import EIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from wildfern.files import open_reading, replacing
from wildfern.ssl.data.copy_folder import mark_in_use

NULL, ENCODED, NAME, NOT_COPIED = range(4)  # the kinds of cells
_ENTRY, _BUFFER = 8, 2**20  # bytes
_ENTRIES = struct.Struct("<2q")


class Cell(NamedTuple):
    """What a row holds: nothing, an encoded image, or the path of an image file; `NOT_COPIED` if it could not be read."""

    kind: int
    content: bytes | memoryview = b""


class TooLong(Exception):
    """The copy would have more bytes than it may have."""


class ColumnCopy:
    """A file of `write_copy`, open for reading by any number of threads. Use `open_copy`."""

    def __init__(self, path: Path, file: BinaryIO, rows: int) -> None:
        self.path, self._file, self._rows = path, file, rows
        self._lock = threading.Lock()
        self.size = os.fstat(file.fileno()).st_size
        self._first = _ENTRY * (rows + 1)

    def __getitem__(self, row: int) -> Cell:
        """The cell of this row, in [0, rows). Raises OSError if it cannot be read, or the file is damaged."""
        begin, end = _ENTRIES.unpack(self._read(_ENTRY * row, _ENTRIES.size))
        kind, begin, end = end & 3, begin >> 2, end >> 2
        if not 0 <= begin <= end <= self.size - self._first:
            raise OSError(EIO, f"row {row} is damaged", os.fspath(self.path))
        return Cell(kind, self._read(self._first + begin, end - begin))

    def is_whole(self) -> bool:
        """Whether the file ends where its last cell does. Raises OSError if it cannot be read."""
        if self.size < self._first:
            return False
        (end,) = struct.unpack("<q", self._read(_ENTRY * self._rows, _ENTRY))
        return end >> 2 == self.size - self._first

    def _read(self, place: int, count: int) -> bytes:
        # Not mapped into memory: there a fault of the disk ends the process.
        if hasattr(os, "pread"):
            content = os.pread(self._file.fileno(), count, place)
        else:
            with self._lock:
                self._file.seek(place)
                content = self._file.read(count)
        if len(content) != count:
            raise OSError(EIO, f"ends within the {count:,} bytes at byte {place:,}", os.fspath(self.path))
        return content


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
    first = place = _ENTRY * (rows + 1)
    row = 0
    with ExitStack() as until_renamed, replacing(path) as beside:
        if os.name == "posix":  # elsewhere an open file is not deleted, and not renamed
            mark_in_use(until_renamed.enter_context(open_reading(beside)))
        with open(beside, "r+b", _BUFFER) as file:
            file.truncate(max(first, expected))  # shows others how much room it needs
            for group in groups:
                entries = []
                file.seek(place)
                for cell in group:
                    place += file.write(cell.content)
                    entries.append(4 * (place - first) + cell.kind)
                    if place > most:
                        raise TooLong
                file.seek(_ENTRY * (row + 1))
                file.write(np.array(entries, "<i8").tobytes())
                row += len(entries)
            file.truncate(place)
