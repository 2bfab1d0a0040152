"""Lock a run folder for one process at a time."""

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wildfern.launch.errors import RunError

LOCK = ".lock"


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock an existing run folder; RunError names the process that holds it.

    The lock is the system's flock on the file `.lock`: it ends with the process, even a killed one, and works between hosts
    on file systems that forward locks, such as NFS. Without flock (Windows, some parallel file systems) it only warns.
    """
    path = folder / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            taken = _take(handle)
        except BlockingIOError:
            owner = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
            raise RunError(f"{folder} is in use by {owner}: wait for it, stop it, or choose another --run") from None
        if not taken:
            warnings.warn(
                f"{folder}: this file system has no locks; do not start a second run in this folder", stacklevel=2
            )
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        try:
            yield
        finally:
            os.ftruncate(handle, 0)  # keep the file: deleting it would let two processes lock two different files
    finally:
        os.close(handle)


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
