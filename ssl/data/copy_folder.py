"""A folder of copies of data: which of them are in use, and room for one more."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from wildfern.files import open_regular

ENDING = ".column"
SPARE = 2**30  # bytes of the disk that are left free
GIB = 2**30


class NoCopy(Exception):
    """Why there is no copy, for the user."""


class NoRoom(NoCopy):
    """Copies that are in use take the room."""


def mark_in_use(file: BinaryIO) -> None:
    """Keep `make_room` from deleting an open file of the folder until it is closed."""
    _lock(file, exclusive=False)


def make_room(folder: Path, needed: int, most: float, ending: str = ENDING, key: str = "disk_gb") -> float:
    """Delete copies until one more of `needed` bytes fits beside the others into `most` bytes, and onto the disk.

    Those that were not used for longest go first; those in use stay. Returns the bytes that there is room for. Raises NoCopy, and
    NoRoom where there may be room later. Names of copies have this `ending`; `key` is what sets `most`.
    """
    if needed > most:
        raise NoCopy(f"it takes {gibibytes(needed)}, and {key} allows {gibibytes(most)}")
    copies = sorted(_copies(folder, ending))
    total, free = sum(size for *_, size in copies), shutil.disk_usage(folder).free - SPARE
    for _, _, path, size in copies if needed <= free + total else []:
        if needed <= min(free, most - total):
            break
        if _delete(path):
            total, free = total - size, shutil.disk_usage(folder).free - SPARE
    takes = f"it takes {gibibytes(needed)}"
    if needed > free:
        kind = NoRoom if total else NoCopy
        raise kind(f"{takes}; {folder} has room for {gibibytes(max(0, free))} and {gibibytes(SPARE)} that stay free")
    if needed > most - total:
        raise NoRoom(f"{takes} beside {gibibytes(total)} in use, and {key} allows {gibibytes(most)}")
    return min(free, most - total)


def gibibytes(count: float) -> str:
    return f"{count / GIB:.3g} GiB"


def _copies(folder: Path, ending: str) -> list[tuple[bool, float, str, int]]:
    """(finished, when it was last used, path, bytes) of each copy."""
    found = []
    for entry in os.scandir(folder):
        if entry.name.endswith(ending):
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                found.append((not entry.name.startswith("."), status.st_mtime, entry.path, status.st_size))
    return found


def _delete(path: str) -> bool:
    """Whether a copy was deleted: not if it is in use, or cannot be."""
    try:
        with os.fdopen(open_regular(path, os.O_RDWR), "r+b") as file:  # some systems lock only what can be written
            if not _lock(file, exclusive=True):
                return False
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _lock(file: BinaryIO, exclusive: bool) -> bool:
    """Whether nobody else holds an opposing lock; True where the system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows, which does not delete open files
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
