"""Lock a run folder for one process at a time."""

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wildfern.files import UnsafeFile, open_regular
from wildfern.launch.errors import RunError

LOCK = ".lock"
MOST_OF_OWNER = 300  # bytes that are read of the owner's name


@contextmanager
def lock(folder: Path, advice: str = "wait for it, stop it, or choose another --run") -> Iterator[None]:
    """Lock an existing folder, of a run or another one that one process at a time may write.

    RunError names the process that holds it, with `advice`. A lock file with other names (hard links) stays empty.

    The lock is the system's flock on the file `.lock`: it ends with the process, even a killed one, and works between hosts
    on file systems that forward locks, such as NFS. Without flock (Windows, some parallel file systems) it only warns.
    """
    path = folder / LOCK
    try:
        handle = open_regular(path, os.O_RDWR | os.O_CREAT)
    except UnsafeFile as error:
        raise RunError(f"{path} {error.strerror}") from error
    try:
        try:
            taken = _take(handle)
        except BlockingIOError:
            owner = _owner(handle) or "another process"
            raise RunError(f"{folder} is in use by {owner}: {advice}") from None
        if not taken:
            warnings.warn(
                f"{folder}: this file system has no locks; do not start a second process in this folder", stacklevel=2
            )
        _write_owner(handle, path, f"process {os.getpid()} on {socket.gethostname()}\n")
        try:
            yield
        finally:
            _write_owner(
                handle, path, ""
            )  # keep the file: deleting it would let two processes lock two different files
    finally:
        os.close(handle)


def _owner(handle: int) -> str:
    os.lseek(handle, 0, os.SEEK_SET)
    text = os.read(handle, MOST_OF_OWNER).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else " " for character in text).strip()


def _write_owner(handle: int, path: Path, text: str) -> None:
    if os.fstat(handle).st_nlink > 1:  # it would be written to a file of another name, too
        return
    try:
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _take(handle: int) -> bool:
    """Whether the file system has locks; raises BlockingIOError if another process holds this one."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True
