"""Copies of data that all processes of a host share: made by one of them while the others wait."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from wildfern.cache_folder import cache_folder
from wildfern.files import remove_partial_files
from wildfern.ssl.data.column_copy import Cell, ColumnCopy, TooLong, open_copy, write_copy
from wildfern.ssl.data.copy_folder import ENDING, NoCopy, gibibytes, make_room
from wildfern.ssl.data.worker_threads import check_wanted
from wildfern.ssl.tracking.current_progress import current_progress

_POLL = 1.0  # s


def find_copy(name: str, rows: int) -> ColumnCopy | None:
    """The copy `name`, of `rows` rows, in the user's cache folder; None if there is none."""
    return open_copy(_path(name), rows)


def make_copy(
    name: str,
    groups: Iterable[Iterable[Cell]],
    rows: int,
    expected: int,
    most: float,
    what: str,
    instead_of: ColumnCopy | None = None,
) -> ColumnCopy:
    """The copy `name` of all cells, which has about `expected` bytes; another process may have made it meanwhile.

    All copies together have at most `most` bytes: others may be deleted. `what`: the column, in words. `instead_of`: a damaged
    copy, which is deleted if it is still the one of this name.
    Raises NoCopy if there is no room, or the folder cannot be used, and the errors of `groups`.
    """
    path = _path(name)
    with making(path, path.with_suffix(".lock"), f"waiting for another process that unpacks {what}"):
        found = open_copy(path, rows)
        if found is not None and (instead_of is None or found.file_number != instead_of.file_number):
            return found
        if instead_of is not None:
            path.unlink(missing_ok=True)
        room = make_room(path.parent, expected, most)
        try:
            write_copy(path, groups, rows, expected, room)
        except TooLong:
            raise NoCopy(f"it takes more than the {gibibytes(room)} that there is room for") from None
        if (made := open_copy(path, rows)) is None:
            raise NoCopy(f"{path} cannot be read")
        return made


@contextmanager
def making(path: Path, lock: Path, waiting: str, wait: bool = True) -> Iterator[None]:
    """A block that makes the copy at `path`; one process at a time is in a block of this `lock`, the others show `waiting`.

    What a process left that was killed in a block for this path is removed before.
    Raises NoCopy where the folder cannot be used, for an OSError of the block, and, if `wait` is False, instead of waiting.
    """
    try:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)  # other users may not be allowed to see the images
        with _alone(lock, waiting, wait):
            with suppress(OSError):  # of another user
                remove_partial_files(path.parent, path.name)
            yield
    except OSError as error:
        raise NoCopy(f"{error.filename or path}: {error.strerror or error}") from error
    except NotImplementedError as error:  # a file system without locks
        raise NoCopy(f"{path.parent}: {error}") from error
    finally:
        current_progress().detail("")


def _path(name: str) -> Path:
    return cache_folder("parquet") / f"{name}{ENDING}"


@contextmanager
def _alone(path: Path, waiting: str, wait: bool) -> Iterator[None]:
    """A block that one process at a time is in."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise NoCopy(waiting) from None
        current_progress().detail(waiting)
        while not lock.is_locked:
            check_wanted()
            try:
                lock.acquire(timeout=_POLL)
            except Timeout:
                continue
    try:
        yield
    finally:
        lock.release()
