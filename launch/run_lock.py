"""One process at a time in a run folder."""

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wildfern.launch.run_folder import RunError

LOCK = ".lock"


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of an existing run folder; RunError says who is in it.

    A lock of the operating system (flock) on the file `.lock`: it ends with the process, however that ends, and holds between
    hosts on file systems that pass locks on, as NFS does. Where the system has none (Windows, some parallel file systems), a
    warning says so.
    """
    path = folder / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            taken = _take(handle)
        except BlockingIOError:
            owner = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
            raise RunError(
                f"{folder} is in use by {owner}: wait for it to end or stop it, or choose another --run"
            ) from None
        if not taken:
            warnings.warn(f"{folder}: no file locks here; nothing keeps a second process out", stacklevel=2)
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        try:
            yield
        finally:
            os.ftruncate(handle, 0)  # the file stays: whoever deletes a lock takes it from one that waits for it
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    """Whether there are locks here; raises BlockingIOError where somebody else holds this one."""
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
