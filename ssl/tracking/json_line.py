"""One line of a file of JSON Lines: its record, its step, or what is wrong with it."""

import os
import re
from collections.abc import Iterator
from typing import Any

from wildfern.bounded_json import parse_json
from wildfern.files import open_reading

MOST_LINE = 2**20  # bytes
LAST_BYTES = 2**20  # some thousand lines

# The lines that `JsonLines` writes, except those with an escape, a letter beyond ASCII or a huge number: a line that matches
# is one that `record_of` accepts.
_TEXT = rb'"[^"\\\x00-\x1f\x80-\xff]*+"'
_NUMBER = rb"-?(?:0|[1-9]\d{0,17}+)(?:\.\d++)?(?:e[+-]?\d++)?"
_VALUE = rb"(?:" + _NUMBER + rb"|" + _TEXT + rb"|true|false|null)"
_PLAIN = re.compile(rb'\{"step": (0|[1-9]\d{0,17}+)(?:, (?!"step")' + _TEXT + rb": " + _VALUE + rb")*+\}\n")


def record_of(line: bytes | None) -> dict[str, Any] | str | None:
    """The record in a line, what is wrong with it, or None for an incomplete one, as only the last of a file can be.

    A record is a mapping; its step, if it has one, is a whole number from 0 on. The argument is None for a line that is too long.
    """
    if line is None:
        return f"is longer than {MOST_LINE:,} bytes"
    try:
        record = parse_json(line)
    except ValueError as error:
        return f"is not a JSON object ({error})" if line.endswith(b"\n") else None
    if not isinstance(record, dict):
        return f"is not a JSON object ({type(record).__name__} instead of an object)"
    if "step" in record and not _is_step(record["step"]):
        return "has a step that is not a whole number from 0 on"
    return record


def step_of(line: bytes | None) -> int | str | None:
    """As `record_of`, with the step in place of the record, -1 for a record without one; most lines are not parsed."""
    if line is not None and (plain := _PLAIN.fullmatch(line)):
        return int(plain[1])
    record = record_of(line)
    return record.get("step", -1) if isinstance(record, dict) else record


def last_lines(path: str | os.PathLike[str], most: int = LAST_BYTES) -> Iterator[bytes]:
    """The lines that begin in the last `most` bytes of a regular file, in order; only the last one may lack its newline.

    Raises UnsafeFile like `open_regular`, OSError for a missing file.
    """
    with open_reading(path) as file:
        if (before := os.fstat(file.fileno()).st_size - most) > 0:
            file.seek(before - 1)
            file.readline(most + 1)
        yield from file


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
