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

from wildfern.bounded_json import parse_json
from wildfern.files import open_appending, read_lines, replacing, set_aside

MOST_LINE = 2**20  # bytes
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

        An incomplete last line is dropped too; lines without a step stay. The file is replaced atomically, so a crash
        here loses nothing. If other lines cannot be read, they are left out, the whole former file is kept as `NAME.damaged`, and
        `announce` gets a message.
        """
        path = Path(path)
        if not os.path.lexists(path):
            return cls(path)
        first, damaged = "", 0

        def kept() -> Iterator[bytes]:
            nonlocal first, damaged
            for number, (line, found) in enumerate(_whole_lines(path), start=1):
                if isinstance(found, str):
                    first, damaged = first or f"line {number} {found}", damaged + 1
                elif found.get("step", -1) < before_step:
                    yield line

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
    for number, (_, found) in enumerate(_whole_lines(Path(path)), start=1):
        if isinstance(found, str):
            damage = damage or f"line {number} {found}"
        else:
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


def _whole_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | str]]:
    """Each line (newline included) and its record, or what is wrong with it; an incomplete last line is left out.

    A record is a mapping; its step, if it has one, is a whole number from 0 on.
    """
    for line in read_lines(path, MOST_LINE):
        if line is None:
            yield b"", f"is longer than {MOST_LINE:,} bytes"
            continue
        try:
            record = parse_json(line)
        except ValueError as error:
            if not line.endswith(b"\n"):
                return
            yield line, f"is not a JSON object ({error})"
            continue
        if not isinstance(record, dict):
            yield line, f"is not a JSON object ({type(record).__name__} instead of an object)"
        elif "step" in record and not _is_step(record["step"]):
            yield line, "has a step that is not a whole number from 0 on"
        else:
            yield line if line.endswith(b"\n") else line + b"\n", record


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
