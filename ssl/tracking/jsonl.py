"""Append-only JSON Lines files that a resumed run continues byte for byte."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any

from wildfern.files import open_appending, read_lines, replacing, set_aside

from .cut_lines import cut_lines
from .json_line import MOST_LINE, record_of, step_of

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class JsonLines:
    """An append-only file with one JSON object per line.

    `step` comes first and the other keys follow in alphabetical order; floats are written by `repr` (the shortest text
    that reads back to the same double), NaN and the infinities as the strings "nan", "inf" and "-inf", because JSON has no
    numbers for them. Every line reaches the operating system at once and the disk at `sync()`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open_appending(self.path)

    @classmethod
    def resume(
        cls, path: str | os.PathLike[str], before_step: int, announce: Callable[[str], None] = lambda message: None
    ) -> "JsonLines":
        """Open `path` to continue at `before_step`; lines of that step or later are removed.

        An incomplete last line is dropped too; lines without a step stay. Lines are written in order of step, so that as a rule
        the file is truncated where they begin; a crash leaves the former length or the new one.

        If other lines cannot be read, they are left out, the whole former file is kept as `NAME.damaged`, and `announce` gets a
        message; the file is then replaced atomically, as it is if a line to remove stands before one that stays.

        In a file of at most 16 MiB every line is checked, in a larger one those of the last 16 MiB. Before these, lines of
        `before_step` or later are found too, and damage if it changes the beginning (with the step) or the end of a line, or
        leaves a NUL byte or what is no UTF-8 in it: then every line is checked. Other damage there (a letter in a number, say)
        stays; `read_records` and the report find it.
        """
        path = Path(path)
        if not os.path.lexists(path) or cut_lines(path, before_step):
            return cls(path)
        first, damaged = "", 0

        def kept() -> Iterator[bytes]:
            nonlocal first, damaged
            for number, line in enumerate(read_lines(path, MOST_LINE), start=1):
                step = step_of(line)
                if isinstance(step, str):
                    first, damaged = first or f"line {number} {step}", damaged + 1
                elif line is not None and step is not None and step < before_step:
                    yield line if line.endswith(b"\n") else line + b"\n"

        with replacing(path) as beside:
            with beside.open("wb") as file:
                file.writelines(kept())
            aside = set_aside(path, stay=True) if damaged else None
        if aside is not None:
            lines = "it is" if damaged == 1 else f"{damaged:,} such lines are"
            announce(f"{path} is damaged: {first}; {lines} left out, and the former file is kept as {aside.name}")
        return cls(path)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line. Values are numbers (or arrays and tensors holding one), strings, booleans or None.

        Raises OSError, naming the file, when the line cannot be written completely; the file then ends with the previous line.
        """
        line = _encode(record)
        before, written = os.fstat(self._file.fileno()).st_size, 0
        try:
            while written < len(line):  # a write may be partial; the next attempt raises the reason
                written += self._file.write(line[written:])
        except OSError as error:
            with suppress(OSError):  # otherwise reading drops the incomplete line
                self._file.truncate(before)
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def sync(self) -> None:
        """Return once everything written so far is on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        if not self._file.closed:
            try:
                self.sync()
            finally:
                self._file.close()

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Every complete line of a file that `JsonLines` wrote, with NaN and the infinities as floats again.

    Raises ValueError for a line that is not such a record.
    """
    records, damage = read_undamaged(path)
    if damage is not None:
        raise ValueError(f"{path}, {damage}; fix or delete it")
    return records


def read_undamaged(path: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], str | None]:
    """As `read_records`, but without the lines that are damaged; and which is the first of them and why, or None."""
    records, damage = [], None
    for number, line in enumerate(read_lines(path, MOST_LINE), start=1):
        found = record_of(line)
        if isinstance(found, str):
            damage = damage or f"line {number} {found}"
        elif found is not None:
            records.append(
                {key: NOT_FINITE.get(value, value) if isinstance(value, str) else value for key, value in found.items()}
            )
    return records, damage


def _encode(record: Mapping[str, Any]) -> bytes:
    keys = sorted(record, key=lambda key: (key != "step", key))
    return json.dumps({key: _scalar(key, record[key]) for key in keys}, ensure_ascii=False).encode() + b"\n"


def _scalar(key: str, value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{key!r} must be a single number or a string, not {type(value).__name__} {value!r}") from error
    return number if math.isfinite(number) else str(number)
