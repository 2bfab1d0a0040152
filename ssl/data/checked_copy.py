"""Checksums of the pieces of a copy, which are compared when a process first reads a piece."""

import errno
import hashlib
import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wildfern.files import read_bytes
from wildfern.ssl.data.base import DataError

ENDING = ".sums"  # of the checksums beside a copy
PIECE = 2**18  # bytes; an image is read with the rest of its pieces once
_NONE = -1  # no checksum


class DamagedCopy(OSError, DataError):
    """A copy that cannot be used. An OSError with a number too: `read_rows` takes other errors for damage of the file itself."""

    def __str__(self) -> str:
        return str(self.strerror)


class Checksums:
    """CRC-32 of each piece of a file that comes in parts of any size; with `contents`, also a digest of the whole."""

    def __init__(self, contents: bool = False) -> None:
        self._sums: list[int] = []
        self._last = self._filled = 0
        self._digest = hashlib.sha256() if contents else None

    def add(self, content: bytes) -> None:
        """The next bytes of the file."""
        if self._digest is not None:
            self._digest.update(content)
        left = memoryview(content)
        while left:
            part, left = left[: PIECE - self._filled], left[PIECE - self._filled :]
            self._last, self._filled = zlib.crc32(part, self._last), self._filled + len(part)
            if self._filled == PIECE:
                self._sums.append(self._last)
                self._last = self._filled = 0

    @property
    def digest(self) -> bytes:
        """SHA-256 of all bytes."""
        assert self._digest is not None
        return self._digest.digest()

    def encoded(self) -> bytes:
        """The content of the file of checksums."""
        sums = np.array([*self._sums, *([self._last] if self._filled else [])], "<u4").tobytes()
        return sums + zlib.crc32(sums).to_bytes(4, "little")


class _Known(NamedTuple):
    """What this process knows of a copy: its number in the file system, its checksums (None: it has none), pieces compared."""

    number: int
    sums: NDArray[np.int64] | None
    compared: bytearray


_known: dict[str, _Known] = {}  # by path; a few bytes for each MB that is read


def forget(path: Path) -> None:
    """Compare the pieces of the copy at `path` anew: it was replaced."""
    _known.pop(str(path), None)


class CheckedCopy(io.RawIOBase):
    """The copy at `path` of a file of `size` bytes, opened to read. Instead of a damaged one `renew` gives another, once."""

    def __init__(
        self, copy: BinaryIO, path: Path, address: str, size: int, renew: Callable[[BinaryIO], BinaryIO]
    ) -> None:
        super().__init__()
        self._copy, self._path, self._address, self._size, self._renew = copy, path, address, size, renew
        self._at, self._renewed = 0, False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self._at = place + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Raises DamagedCopy for a copy that is damaged again, or cannot be made again."""
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        while _is_damaged(self._copy, self._path, self._size, self._at, stop):
            if self._renewed:
                raise DamagedCopy(
                    errno.EIO,
                    f"{self._path}, the copy of {self._address}, is damaged, although it was downloaded again: check the "
                    "disk and the memory of this machine, or set WILDFERN_CACHE to a folder on another disk",
                )
            self._renewed = True
            self._copy = self._renew(self._copy)
        self._copy.seek(self._at)
        count = int(self._copy.readinto(memoryview(buffer)[: stop - self._at]))  # type: ignore[attr-defined]
        self._at += count
        return count

    def close(self) -> None:
        self._copy.close()
        super().close()


def _is_damaged(copy: BinaryIO, path: Path, size: int, start: int, stop: int) -> bool:
    """Whether a piece of the copy with the bytes [start, stop) is not as it was when it was written."""
    known, number = _known.get(str(path)), os.fstat(copy.fileno()).st_ino
    if known is None or known.number != number:
        sums = _read_sums(path.with_suffix(ENDING), -(-size // PIECE))
        _known[str(path)] = known = _Known(number, sums, bytearray(0 if sums is None else len(sums)))
    if known.sums is None:
        return False
    for piece in range(start // PIECE, (stop - 1) // PIECE + 1):
        if not known.compared[piece]:
            copy.seek(piece * PIECE)
            if zlib.crc32(copy.read(PIECE)) != known.sums[piece]:
                return True
            known.compared[piece] = 1
    return False


def _read_sums(path: Path, count: int) -> NDArray[np.int64] | None:
    """The checksums of a copy of `count` pieces; None if there are none, and for a damaged file of them those of no content."""
    try:
        content = read_bytes(path, 4 * (count + 1))
    except FileNotFoundError:  # of a copy of an earlier version
        return None
    except OSError:
        content = b""
    whole = len(content) == 4 * (count + 1) and zlib.crc32(content[:-4]) == int.from_bytes(content[-4:], "little")
    return np.frombuffer(content[:-4], "<u4").astype(np.int64) if whole else np.full(count, _NONE)
