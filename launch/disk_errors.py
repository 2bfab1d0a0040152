"""A disk that is full or read-only, said in the user's words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wildfern.launch.run_folder import RunError

FAULTS = {errno.ENOSPC, errno.EROFS, errno.EFBIG} | ({errno.EDQUOT} if hasattr(errno, "EDQUOT") else set())


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Errors of writing into a run folder become RunErrors that say what to do; others pass."""
    try:
        yield
    except OSError as error:
        ours = error.filename is None or folder.absolute() in Path(error.filename).absolute().parents
        if error.errno not in FAULTS or not ours:
            raise
        raise RunError(
            f"cannot write {error.filename or folder}: {error.strerror}. Finished checkpoints are whole: make room, then go on "
            f"with --run {folder} --resume"
        ) from error
