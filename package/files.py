"""Files of a run folder, which may be damaged or come from a stranger.

No symbolic link is followed, no FIFO or device is opened, no file is read without a limit, and a file is replaced as a whole or
not at all. Each error names its file.
"""

import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EINVAL
from glob import escape
from itertools import count
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "UnsafeFile",
    "check_folder",
    "check_replaceable",
    "create",
    "is_regular",
    "open_appending",
    "open_reading",
    "open_regular",
    "read_bytes",
    "read_lines",
    "remove_partial_files",
    "replacing",
    "set_aside",
    "sync_folder",
    "updating",
    "write_text",
]

PathLike = str | os.PathLike[str]

_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)  # Windows
_PARTIAL = ".partial_"
_NAME = 50  # characters of the name of a file in that of its partial one
_WAIT = 10.0  # s for another process that updates a file


class UnsafeFile(OSError):
    """A path that is neither a regular file nor missing, or a file over its limit; nothing was read or written."""

    def __init__(self, path: PathLike, reason: str) -> None:
        super().__init__(EINVAL, reason, os.fspath(path))


def is_regular(path: PathLike) -> bool:
    """Whether `path` itself is a regular file, and not a link to one. False for a missing file."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def open_regular(path: PathLike, flags: int) -> int:
    """`os.open` for a regular file; raises UnsafeFile for a link, FIFO, device, socket or folder, without opening it."""
    with suppress(FileNotFoundError):
        _check_regular(path, os.lstat(path).st_mode)
    try:
        handle = os.open(path, flags | _NO_LINK | _BINARY, 0o666)
    except OSError:
        with suppress(FileNotFoundError):
            _check_regular(path, os.lstat(path).st_mode)
        raise
    try:
        _check_regular(path, os.fstat(handle).st_mode)  # it may have been replaced since
    except UnsafeFile:
        os.close(handle)
        raise
    return handle


def open_reading(path: PathLike) -> BinaryIO:
    """A regular file, opened to read bytes. Raises UnsafeFile like `open_regular`, OSError for a missing file."""
    return os.fdopen(open_regular(path, os.O_RDONLY), "rb")


def open_appending(path: PathLike) -> BinaryIO:
    """A regular file, made if it is missing, opened to append bytes without a buffer.

    Raises UnsafeFile like `open_regular`, and for a file with another name (hard link), which would be changed there too.
    """
    handle = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    if os.fstat(handle).st_nlink > 1:
        os.close(handle)
        raise UnsafeFile(path, "is a hard link: the file has another name, where it would be changed too. Copy it")
    return os.fdopen(handle, "ab", buffering=0)


def create(path: PathLike) -> BinaryIO:
    """A new file, opened to write bytes without a buffer. Raises FileExistsError for anything at `path`, a link too."""
    return os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb", buffering=0)


def read_bytes(path: PathLike, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises UnsafeFile like `open_regular` and for a larger one."""
    with open_reading(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UnsafeFile(path, f"is larger than {most:,} bytes, the limit for a file of its kind")
    return content


def read_lines(path: PathLike, most: int) -> Iterator[bytes | None]:
    """The lines of a regular file, each with its newline; None for a line of more than `most` bytes, which is not kept.

    Raises UnsafeFile like `open_regular`, OSError for a missing file.
    """
    with open_reading(path) as file:
        while line := file.readline(most + 1):
            if len(line) <= most:
                yield line
                continue
            while line and not line.endswith(b"\n"):
                line = file.readline(most + 1)
            yield None


def set_aside(path: PathLike, stay: bool = False) -> Path:
    """Rename what is at `path` to the first free one of `NAME.damaged`, `NAME.damaged-1`, …, and return that path.

    For what is damaged and about to be replaced, so that its bytes are kept; a link is renamed, not followed. `stay`: a file also
    keeps its name until then, where the file system has hard links, so that there is always a file of that name.
    """
    path = Path(path)
    aside = next(
        beside
        for number in count()
        if not os.path.lexists(beside := path.with_name(f"{path.name}.damaged" + (f"-{number}" if number else "")))
    )
    if stay:
        with suppress(OSError):
            os.link(path, aside, follow_symlinks=False)
            return aside
    os.rename(path, aside)
    return aside


@contextmanager
def replacing(path: PathLike, sync: bool = True) -> Iterator[Path]:
    """Yield the path of a new, empty file beside `path`; at the end of the block it is synced and renamed to `path`.

    After an error or, with `sync`, a power cut `path` is as before. A link at `path` is replaced, not followed; UnsafeFile is
    raised for a FIFO, device, socket or folder. An OSError of the block that names no file, or the new one, names `path`.
    """
    path = Path(path)
    check_replaceable(path)
    beside = path.with_name(f"{_PARTIAL}{secrets.token_hex(4)}_{path.name[-_NAME:]}")  # a name has at most 255 bytes
    try:
        create(beside).close()
        yield beside
        if sync:
            handle = open_regular(beside, os.O_RDWR)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        os.replace(beside, path)
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, os.fspath(beside)):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    finally:
        with suppress(OSError):
            beside.unlink()


@contextmanager
def updating(folder: PathLike) -> Iterator[None]:
    """A block that reads a file of the folder, changes it and replaces it: no other process is in such a block meanwhile.

    Waits for that process, for 10 s at most: a stranger may hold the lock, the system's flock on the folder. Does not wait where
    the system has no locks on folders.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        until = time.monotonic() + _WAIT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.05)
                    continue
            except OSError:  # a file system without locks
                pass
            break
        yield
    finally:
        os.close(handle)


def write_text(path: PathLike, text: str) -> None:
    """Write a file as a whole, by `replacing`, in UTF-8."""
    with replacing(path) as beside:
        beside.write_bytes(text.encode("utf-8", "backslashreplace"))  # file names may be no UTF-8


def remove_partial_files(folder: PathLike, of: str | None = None) -> None:
    """Remove what `replacing` leaves in a folder when its process is killed. Call it while no other process writes there.

    `of`: only what it leaves of the file of this name, which no other process may write then.
    """
    name = "*" if of is None else escape(of[-_NAME:])
    for path in Path(folder).glob(f"{_PARTIAL}????????_{name}"):
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)


def check_replaceable(path: PathLike) -> None:
    """Raise UnsafeFile for a FIFO, device, socket or folder; a file, a link and a missing file pass."""
    with suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if not stat.S_ISLNK(mode):
            _check_regular(path, mode)


def check_folder(path: PathLike) -> None:
    """Raise UnsafeFile if `path` is a link or a file; a missing folder passes."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise UnsafeFile(
            path,
            "is a symbolic link, which is not followed in a run folder (the run folder itself may be a link): put a folder in "
            "its place",
        )
    if not stat.S_ISDIR(mode):
        raise UnsafeFile(path, f"is {_kind(mode)}, not a folder")


def sync_folder(folder: PathLike) -> None:
    """Return once new names in a folder are on the disk, where the system supports it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_regular(path: PathLike, mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise UnsafeFile(path, "is a symbolic link, which is not followed in a run folder: put the file in its place")
    if not stat.S_ISREG(mode):
        raise UnsafeFile(path, f"is {_kind(mode)}, not a regular file")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFREG: "a file",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")
