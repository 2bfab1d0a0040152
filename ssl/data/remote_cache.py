"""Whole copies of remote files in the user's cache folder, up to a limit, shared by all processes of a host."""

import hashlib
import io
import os
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from wildfern.cache_folder import cache_folder
from wildfern.files import open_reading, replacing
from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.copy_folder import GIB, NoCopy, NoRoom, make_room, mark_in_use
from wildfern.ssl.data.remote import PIECE, Missing, Store
from wildfern.ssl.data.shared_copy import making
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.worker_threads import check_wanted
from wildfern.ssl.tracking.current_progress import current_progress

ENDING = ".file"
TAIL = 2**20  # bytes at the end of a parquet file that have its footer
_WAIT, _POLL = 600.0, 0.2  # s for others to end their reading, where they take the room
_RECENT = 1.0  # s for which a file counts as just used


@dataclass(frozen=True)
class RemoteCache:
    """Copies of remote files, of at most `most` bytes together: for one more, those that were not used for longest are deleted.

    The end of a file that has no copy is read alone, without one, if it is `tail` bytes at most and an eighth of the file.
    """

    most: float
    tail: int = 0

    @classmethod
    def of_gigabytes(cls, cache_gb: float, tail: int = 0) -> "RemoteCache":
        """Raises DataError for a size that is none."""
        if not cache_gb > 0:
            raise DataError(f"cache_gb must be a number of gigabytes of more than 0, got {cache_gb}")
        return cls(cache_gb * GIB, tail)

    def open(self, file: SteadyFile) -> BinaryIO:
        """The copy of a file, downloaded if there is none.

        Raises DataError if it cannot be, or is not the file that was noted.
        """
        if (copy := self._copy(file)) is not None:
            return copy
        if 0 < 8 * self.tail <= file.size:
            return io.BufferedReader(_EndFirst(self, file))
        return self.downloaded(file)

    def holds(self, file: SteadyFile) -> bool:
        """Whether there is a copy, which counts as used now."""
        if (copy := self._copy(file)) is None:
            return False
        copy.close()
        return True

    def downloaded(self, file: SteadyFile) -> BinaryIO:
        """Like `open`, always a copy."""
        until = time.monotonic() + _WAIT
        while True:
            try:
                return self.download(file)
            except NoCopy as reason:
                if not isinstance(reason, NoRoom) or time.monotonic() > until:
                    raise DataError(f"{file.path} cannot be downloaded: {reason}") from reason
            check_wanted()
            time.sleep(_POLL)

    def download(self, file: SteadyFile, wait: bool = True) -> BinaryIO:
        """The copy, downloaded if there is none yet; `wait`: while another process or thread does that.

        Raises NoCopy, NoRoom and DataError.
        """
        path, waiting = self._path(file), f"waiting for another process that downloads {file.path}"
        # One of 4096 locks, since lock files stay.
        with making(path, path.parent / f"{path.name[:3]}.lock", waiting, wait), ExitStack() as until_opened:
            if (copy := self._copy(file)) is not None:
                return copy
            with ExitStack() as until_renamed:
                with FileLock(path.parent / "room.lock"):
                    make_room(path.parent, file.size, self.most, ENDING, "cache_gb")
                    beside = until_renamed.enter_context(replacing(path))
                    if os.name == "posix":  # elsewhere an open file is not deleted, and not renamed
                        mark_in_use(until_opened.enter_context(open_reading(beside)))
                    os.truncate(beside, file.size)  # the room that it takes, for others
                _write(beside, file)
            if (copy := self._copy(file)) is None:
                raise NoCopy(f"{path} cannot be read")
            return copy

    def _copy(self, file: SteadyFile) -> BinaryIO | None:
        """The copy, opened and marked as used now and in use."""
        try:
            copy = open_reading(self._path(file))
        except OSError:
            return None
        status = os.fstat(copy.fileno())
        if status.st_size != file.size:
            copy.close()
            return None
        mark_in_use(copy)
        if time.time() - status.st_mtime > _RECENT:
            with suppress(OSError):  # of another user
                os.utime(copy.name)
        return copy

    def _path(self, file: SteadyFile) -> Path:
        identity = f"{file.path}\n{file.size}\n{file.changed}"
        name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return cache_folder("remote") / f"{name}{ENDING}"


def _write(path: Path, file: SteadyFile) -> None:
    """Download a file into the existing one at `path`. Raises DataError if it is not the file that was noted."""
    store, progress = Store(file.path), current_progress()
    progress.detail(f"downloading {file.path}")
    with open(path, "r+b") as written:
        for start in range(0, file.size, PIECE):
            check_wanted()
            try:
                content = store.piece(file.path, start, min(start + PIECE, file.size))
            except Missing:
                raise file.gone() from None
            except DataError:
                check_unchanged(file)
                raise
            written.write(content)
    check_unchanged(file)


def check_unchanged(file: SteadyFile) -> None:
    """Raise DataError if the store has another file now, or none."""
    try:
        size, changed = Store(file.path).facts(file.path)
    except Missing:
        raise file.gone() from None
    if (size, changed) != (file.size, file.changed):
        raise file.other(size)


class _EndFirst(io.RawIOBase):
    """A file whose last bytes are read alone, and which is downloaded as soon as others are needed."""

    def __init__(self, cache: RemoteCache, file: SteadyFile) -> None:
        super().__init__()
        self._cache, self._file = cache, file
        self._at, self._end = 0, b""
        self._copy: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self._at = place + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        file, start = self._file, self._file.size - self._cache.tail
        if self._copy is None and self._at < start:
            self._copy = self._cache.downloaded(file)
        if self._copy is not None:
            self._copy.seek(self._at)
            count = self._copy.readinto(buffer)  # type: ignore[attr-defined]
        else:
            if not self._end:
                try:
                    self._end = Store(file.path).piece(file.path, start, file.size)
                except Missing:
                    raise file.gone() from None
            content = self._end[self._at - start :][: len(buffer)]
            buffer[: len(content)] = content
            count = len(content)
        self._at += count
        return int(count)

    def close(self) -> None:
        if self._copy is not None:
            self._copy.close()
        super().close()
