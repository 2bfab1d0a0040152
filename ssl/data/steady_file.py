"""A file of the data that must stay the same while it is read, from the first look to the end of a run."""

import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from wildfern.ssl.data.base import DataError

if TYPE_CHECKING:
    from wildfern.ssl.data.remote_cache import RemoteCache

_SECOND = 10**9  # ns
_NEEDED = "a run needs the same data to the end: restore it, unless its content is the same, and continue with --resume"
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class SteadyFile(NamedTuple):
    """A regular file with the bytes and the time of its last change (ns) that it had when it was first opened.

    With `cache` a file in an object store: `path` is its address, `changed` a number for what the store tells of its contents.
    `state`: its number in the file system, and when the system last noted a change of it or its name (ns). No program sets this
    time, so another content is seen by it where size and `changed` are as before (`cp -p`, `touch -r`, `rsync -t`).
    """

    path: str
    size: int
    changed: int
    cache: "RemoteCache | None" = None
    state: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, path: "str | os.PathLike[str] | SteadyFile") -> "SteadyFile":
        """Note what the file is now. Raises DataError if it is missing, or a folder, FIFO or device."""
        if isinstance(path, SteadyFile):
            return path
        path = os.fspath(path)
        try:
            status = os.stat(path)
        except OSError as error:
            raise DataError(f"{path} cannot be opened: {error.strerror}") from error
        except ValueError as error:  # a zero byte in the name
            raise DataError(f"{path!r} cannot be opened: {error}") from error
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is not a regular file")
        return cls(path, status.st_size, status.st_mtime_ns, state=(status.st_ino, status.st_ctime_ns))

    def __str__(self) -> str:
        return self.path

    @property
    def parent(self) -> str:
        """The folder of the file."""
        return self.path.rpartition("/")[0] if self.cache is not None else os.path.dirname(self.path)

    @property
    def full_path(self) -> str:
        """The address, or the path from the root on."""
        return self.path if self.cache is not None else os.path.abspath(self.path)

    @property
    def facts(self) -> tuple[int, ...]:
        """What differs for another content at this path: for what is kept of the file between commands."""
        return (self.size, self.changed, *self.state)

    def open(self) -> BinaryIO:
        """The file, opened to read bytes. Raises DataError if it was changed, replaced or removed since it was noted."""
        if self.cache is not None:
            return self.cache.open(self)
        try:
            handle = os.open(self.path, _READ)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            raise self.gone() from error
        try:
            self.check(handle)
            return os.fdopen(handle, "rb")
        except BaseException:
            os.close(handle)
            raise

    def check(self, handle: int) -> None:
        """Raise DataError if the file behind this open handle is not as it was noted."""
        status = os.fstat(handle)
        same = stat.S_ISREG(status.st_mode) and _same_time(status.st_mtime_ns, self.changed)
        if status.st_size != self.size or not same:
            raise self.other(status.st_size)

    def gone(self) -> DataError:
        """That there is no such file any more."""
        return DataError(f"{self.path} is gone: it was there when it was first opened; {_NEEDED}")

    def other(self, size: int) -> DataError:
        """That there is another file now, of `size` bytes."""
        what = "it was written to" if size == self.size else f"it had {self.size:,} bytes, and has {size:,}"
        return DataError(f"{self.path} has changed since it was opened: {what}; {_NEEDED}")


def _same_time(one: int, other: int) -> bool:
    """Whether two times in ns are one, which file systems and copies of the file may have rounded down to seconds."""
    rounded = 0 in (one % _SECOND, other % _SECOND) and one // _SECOND == other // _SECOND
    return one == other or rounded
