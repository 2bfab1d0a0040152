"""Whole copies of remote files in the user's cache folder, up to a limit, shared by all processes of a host."""

import errno
import hashlib
import io
import os
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from filelock import FileLock

from wildfern.cache_folder import cache_folder
from wildfern.files import open_reading, read_bytes, replacing, write_text
from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.checked_copy import ENDING as SUMS
from wildfern.ssl.data.checked_copy import CheckedCopy, DamagedCopy, forget
from wildfern.ssl.data.copy_folder import GIB, NoCopy, NoRoom, make_room, mark_in_use
from wildfern.ssl.data.remote import UNTOLD, Missing, NoRanges, Store
from wildfern.ssl.data.remote_download import OF_CONTENTS, WITHOUT_RANGES, download_into, of_contents, server_of
from wildfern.ssl.data.shared_copy import making
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.worker_threads import check_wanted

ENDING = ".file"
TAIL = 2**20  # bytes at the end of a parquet file that have its footer
_WAIT, _POLL = 600.0, 0.2  # s for others to end their reading, where they take the room
_RECENT = 1.0  # s for which a file counts as just used
_UNUSED = 3600.0  # s after which checksums without a copy are deleted
_began = time.time()  # of this process

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteCache:
    """Copies of remote files, of at most `most` bytes together: for one more, those that were not used for longest are deleted.

    The end of a file that has no copy is read alone, without one, if it is `tail` bytes at most and an eighth of the file.
    """

    most: float
    tail: int = 0

    @classmethod
    def of_gibibytes(cls, cache_gb: float, tail: int = 0) -> "RemoteCache":
        """Raises DataError for a size that is none."""
        if not cache_gb > 0:
            raise DataError(f"cache_gb must be a number of GiB of more than 0, got {cache_gb}")
        return cls(cache_gb * GIB, tail)

    def open(self, file: SteadyFile) -> BinaryIO:
        """The copy of a file, downloaded if there is none.

        Raises DataError if it cannot be, or is not the file that was noted.
        """
        if (copy := self._copy(file)) is not None:
            return self._checked(file, copy)
        if 0 < 8 * self.tail <= file.size and file.changed < OF_CONTENTS and server_of(file) not in WITHOUT_RANGES:
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
        return self._checked(file, _when_there_is_room(file, lambda: self.download(file)))

    def download(self, file: SteadyFile, wait: bool = True, instead_of: int | None = None) -> BinaryIO:
        """The copy, downloaded if there is none yet; `wait`: while another process or thread does that.

        The copy with the number `instead_of` in the file system is replaced. Raises NoCopy, NoRoom and DataError.
        """
        path = self._path(file)
        with _making(path, file, wait):
            if (copy := self._copy(file)) is not None:
                if os.fstat(copy.fileno()).st_ino != instead_of:
                    return copy
                copy.close()
                path.unlink()
            return self._fetch(file)[0]

    def by_contents(self, file: SteadyFile) -> tuple[SteadyFile, bool]:
        """The same file, of which the server tells nothing, with a number for its contents; and whether it was downloaded for it.

        It was since this process began, by this or another process: the copies of earlier ones may be out of date.
        Raises DataError.
        """
        path = self._path(file)
        record = path.with_suffix(".fetched")

        def look() -> tuple[SteadyFile, bool]:
            with _making(path, file):
                if (number := _fetched_since(record, _began)) is not None:
                    return file._replace(changed=number), False
                began = time.time()
                copy, fetched = self._fetch(file)
                copy.close()
                write_text(record, f"{began!r} {fetched.changed}\n")
                return fetched, True

        return _when_there_is_room(file, look)

    def _fetch(self, file: SteadyFile) -> tuple[BinaryIO, SteadyFile]:
        """Download a file: its copy, and the file, with a number for its contents if it had none. Raises NoCopy and DataError."""
        path = self._path(file)
        with ExitStack() as until_opened:
            with ExitStack() as until_renamed:
                with FileLock(path.parent / "room.lock"):
                    make_room(path.parent, file.size, self.most, ENDING, "cache_gb")
                    _delete_unused(path.parent)
                    beside = until_renamed.enter_context(replacing(path))
                    if os.name == "posix":  # elsewhere an open file is not deleted, and not renamed
                        mark_in_use(until_opened.enter_context(open_reading(beside)))
                    os.truncate(beside, file.size)  # the room that it takes, for others
                sums = download_into(beside, file)
                if file.changed == UNTOLD:
                    file = file._replace(changed=of_contents(sums))
                with replacing(self._path(file).with_suffix(SUMS)) as written:
                    written.write_bytes(sums.encoded())
            if path != (named := self._path(file)):
                os.replace(path, named)
            forget(named)
            if (copy := self._copy(file)) is None:
                raise NoCopy(f"{named} cannot be read")
            return copy, file

    def _checked(self, file: SteadyFile, copy: BinaryIO) -> BinaryIO:
        """The copy, whose pieces are compared with their checksums; a damaged one is downloaded again."""
        path = self._path(file)

        def renew(damaged: BinaryIO) -> BinaryIO:
            number = os.fstat(damaged.fileno()).st_ino
            damaged.close()
            warnings.warn(f"{path}, the copy of {file.path}, is damaged: downloading it again", stacklevel=2)
            try:
                return _when_there_is_room(file, lambda: self.download(file, instead_of=number))
            except DataError as error:
                raise DamagedCopy(errno.EIO, f"{path}, the copy of {file.path}, is damaged: {error}") from error

        return io.BufferedReader(CheckedCopy(copy, path, file.path, file.size, renew))

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


def _making(path: Path, file: SteadyFile, wait: bool = True) -> AbstractContextManager[None]:
    """A block that makes the copy at `path`."""
    # One of 4096 locks, since lock files stay.
    lock = path.parent / f"{path.name[:3]}.lock"
    return making(path, lock, f"waiting for another process that downloads {file.path}", wait)


def _when_there_is_room(file: SteadyFile, action: Callable[[], T]) -> T:
    """What `action` returns; where copies in use take the room, it is waited for. Raises DataError."""
    until = time.monotonic() + _WAIT
    while True:
        try:
            return action()
        except NoCopy as reason:
            if not isinstance(reason, NoRoom) or time.monotonic() > until:
                raise DataError(f"{file.path} cannot be downloaded: {reason}") from reason
        check_wanted()
        time.sleep(_POLL)


def _fetched_since(record: Path, began: float) -> int | None:
    """The number for the contents of a file that was downloaded after this time."""
    try:
        at, number = read_bytes(record, 100).split()
        return int(number) if float(at) >= began else None
    except (OSError, ValueError):
        return None


def _delete_unused(folder: Path) -> None:
    """Delete checksums whose copies were deleted."""
    names = set(os.listdir(folder))
    for name in names:
        stem, ending = os.path.splitext(name)
        if ending == SUMS and stem + ENDING not in names:
            with suppress(OSError):
                if time.time() - os.stat(folder / name).st_mtime > _UNUSED:  # it may just be made
                    os.unlink(folder / name)


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
                except NoRanges:
                    WITHOUT_RANGES.add(server_of(file))
                    self._copy = self._cache.downloaded(file)
                    return self.readinto(buffer)
            content = self._end[self._at - start :][: len(buffer)]
            buffer[: len(content)] = content
            count = len(content)
        self._at += count
        return int(count)

    def close(self) -> None:
        if self._copy is not None:
            self._copy.close()
        super().close()
