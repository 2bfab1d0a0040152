"""Errors that the user can fix, in the user's words: exit code 2 and one message, no traceback."""

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from wildfern.launch.limits import limit_of_files
from wildfern.recipes import RecipeErrors
from wildfern.registry import Origin, origin_of_module
from wildfern.ssl.data import DataError

DISK_FAULTS = {errno.ENOSPC, errno.EROFS, errno.EFBIG} | ({errno.EDQUOT} if hasattr(errno, "EDQUOT") else set())


class RunError(ValueError):
    """An invalid command, or a run folder that cannot be used."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the ValueErrors of components, which say what the user asked for that is not possible, into RunErrors.

    RecipeErrors pass: they are several.
    """
    try:
        yield
    except (RunError, DataError, RecipeErrors):
        raise
    except ValueError as error:
        raise RunError(str(error)) from error


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of a full or read-only disk into RunErrors if they name a file of the run folder, or none; others pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        if (file := _file_of(error)) is None:
            raise RunError(
                f"cannot write: {error.strerror} ({_raised_in(error)}, which does not name the file; perhaps one in the folder "
                "of temporary files, in NUMBA_CACHE_DIR or in ~/.cache). Finished checkpoints are intact: free space on that "
                f"disk, then --run {folder} --resume"
            ) from error
        if not _inside(file, folder):
            if error.filename is None:
                raise OSError(error.errno, error.strerror, str(file)) from error
            raise
        raise RunError(cannot_write(file, error.strerror, folder)) from error


@contextmanager
def errors_after_training(folder: Path) -> Iterator[None]:
    """Turn errors of writing scores and report into RunErrors that say what is complete, and how to repeat the rest."""
    try:
        yield
    except OSError as error:
        file = _file_of(error)
        if error.errno not in DISK_FAULTS or file is None or not _inside(file, folder):
            raise
        raise RunError(
            f"cannot write {file}: {error.strerror}. Training is complete, with its backbone in "
            f"{folder / 'backbone.safetensors'}: free disk space, then repeat the command with --run {folder} --resume, which "
            "only evaluates and writes the report"
        ) from error


def _file_of(error: BaseException) -> Path | None:
    """The file that an OSError, or one that it was raised from, names."""
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        if isinstance(now, OSError):
            for name in (now.filename, now.filename2):
                if isinstance(name, str | bytes | os.PathLike):
                    return Path(os.fsdecode(name))
        now = now.__cause__ or now.__context__
    return None


def _raised_in(error: BaseException) -> str:
    """File and function of the code that raised an error."""
    entries = traceback.extract_tb(error.__traceback__)
    return f"in {'/'.join(Path(entries[-1].filename).parts[-3:])}, {entries[-1].name}" if entries else "by the system"


def _inside(file: Path, folder: Path) -> bool:
    return folder.absolute() in file.absolute().parents


def cannot_write(file: str | Path, reason: object, folder: Path) -> str:
    """The message for a file of a run folder that cannot be written."""
    remedy = "free disk space"
    for number in (errno.EFBIG, errno.EMFILE):
        if os.strerror(number) in str(reason) and (limit := limit_of_files(number)):
            reason, _, remedy = f"{reason}{limit}".rpartition(": ")
    saved = any((folder / "checkpoints").glob("step_*"))
    state = "Finished checkpoints are intact" if saved else "There is no checkpoint yet"
    return f"cannot write {file}: {reason}. {state}: {remedy}, then repeat the command with --run {folder} --resume"


def place_in_plugin(error: BaseException) -> str | None:
    """File, line and function of a plugin or another package that raised this error, or called what raised it."""
    if not (entries := list(_plugin_entries(error))):
        return None
    origin, entry = entries[-1]
    return f"{origin}, line {entry.tb_lineno}, in {entry.tb_frame.f_code.co_name}"


def plugin_traceback(error: BaseException) -> str | None:
    """The traceback from the first line of a plugin or another package on, with its name; None if it has no part in it."""
    if (found := next(_plugin_entries(error), None)) is None:
        return None
    origin, start = found
    lines = traceback.format_exception(type(error), error, start)
    return f"error in {origin}:\n{''.join(lines).rstrip()}"


def _plugin_entries(error: BaseException) -> Iterator[tuple[Origin, TracebackType]]:
    """The entries of the traceback that are in code of a plugin or another package."""
    entry = error.__traceback__
    while entry is not None:
        if origin := origin_of_module(entry.tb_frame.f_globals.get("__name__", "")):
            yield origin, entry
        entry = entry.tb_next
