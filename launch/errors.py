"""Errors that the user can fix, in the user's words: exit code 2 and one message, no traceback."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wildfern.ssl.data import DataError

DISK_FAULTS = {errno.ENOSPC, errno.EROFS, errno.EFBIG} | ({errno.EDQUOT} if hasattr(errno, "EDQUOT") else set())


class RunError(ValueError):
    """An invalid command, or a run folder that cannot be used."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the ValueErrors of components, which say what the user asked for that is not possible, into RunErrors."""
    try:
        yield
    except (RunError, DataError):
        raise
    except ValueError as error:
        raise RunError(str(error)) from error


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of a full or read-only disk into RunErrors where they concern the run folder; others pass."""
    try:
        yield
    except OSError as error:
        inside = error.filename is None or folder.absolute() in Path(error.filename).absolute().parents
        if error.errno not in DISK_FAULTS or not inside:
            raise
        raise RunError(cannot_write(error.filename or folder, error.strerror, folder)) from error


def cannot_write(file: str | Path, reason: object, folder: Path) -> str:
    """The message for a file of a run folder that cannot be written."""
    return (
        f"cannot write {file}: {reason}. Finished checkpoints are intact: free disk space, then --run {folder} --resume"
    )
