"""Cut the lines of a step and later ones off a file of JSON Lines, in place, without parsing the lines before the end."""

import os
import re
from typing import BinaryIO

from wildfern.files import open_regular

from .json_line import MOST_LINE, step_of

CHECKED = 16 * 2**20  # bytes at the end of the file, of which each line is checked
_BLOCK = 2**18
_END = b"}\n"
_STEP = re.compile(rb'\}\n\{"step": (0|[1-9]\d{0,17}+)(?=[,}])')  # with the end of the line before it


def cut_lines(path: str | os.PathLike[str], before_step: int) -> bool:
    """Truncate a file before its first line of step `before_step` or later; False, with nothing changed, where that will not do.

    It will if no line from there on stays, and none is damaged but an incomplete last one. Of the last 16 MiB (and of any smaller
    file) each line is checked. Lines before are not parsed, but each must begin with `{"step": ` and a step before the cut, end
    with `}`, and be UTF-8 without NUL or another `{`: so a line out of order is found there, a digit that became a letter is not.
    False also for a file with another name (hard link) or without permission to write. Raises UnsafeFile like `open_regular`.
    """
    try:
        handle = open_regular(path, os.O_RDWR)
    except PermissionError:
        return False
    with os.fdopen(handle, "r+b") as file:
        state = os.fstat(file.fileno())
        start = _line_from(file, state.st_size - CHECKED, before_step)
        end = None if start is None or state.st_nlink > 1 else _end_of_earlier(file, start, before_step)
        if end is None:
            return False
        if end < state.st_size:
            try:
                file.truncate(end)
                os.fsync(file.fileno())  # else new lines may reach the disk before the new length
            except OSError as error:
                raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        return True


def _line_from(file: BinaryIO, place: int, before_step: int) -> int | None:
    """The start of a line at byte `place` or after it; None if a line before it is not of an earlier step, or looks damaged."""
    start = 0
    while start < place:
        block = file.read(_BLOCK)
        block += file.readline(MOST_LINE - _BLOCK)
        steps = _steps_written(block)
        if steps is None or max(steps) >= before_step:
            return None
        start += len(block)
    return start


def _steps_written(block: bytes) -> list[int] | None:
    """The step of each of some whole lines; None if one of them does not look like those with a step that we write."""
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return None
    lines, steps = block.count(b"\n"), _STEP.findall(_END + block)
    whole = block.endswith(_END) and len(steps) == lines == block.count(b"{") and b"\0" not in block
    return list(map(int, steps)) if whole else None


def _end_of_earlier(file: BinaryIO, start: int, before_step: int) -> int | None:
    """Where the lines with an earlier step end that follow byte `start`; None if others are between them, or damaged."""
    file.seek(start)
    end = place = start
    for line in file:
        step = step_of(line) if len(line) <= MOST_LINE else "is too long"
        if step is None:  # incomplete
            break
        if isinstance(step, str) or not line.endswith(b"\n"):
            return None
        place += len(line)
        if step < before_step:
            if end + len(line) < place:
                return None
            end = place
    return end
