"""Append-only JSON Lines files that a resumed run continues byte for byte."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any

from wildfern.files import open_appending, open_reading, replacing

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
    def resume(cls, path: str | os.PathLike[str], before_step: int) -> "JsonLines":
        """Open `path` to continue at `before_step`; lines of that step or later are removed.

        An incomplete last line is dropped too; lines without a step stay. The file is replaced atomically, so a crash
        here loses nothing. Raises ValueError when a line before the last is not a JSON object.
        """
        path = Path(path)
        if os.path.lexists(path):
            with replacing(path) as beside, beside.open("wb") as file:
                file.writelines(line for line, step in _whole_lines(path) if step is None or step < before_step)
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
    """Every complete line of a file that `JsonLines` wrote, with NaN and the infinities as floats again."""
    return [
        {
            key: NOT_FINITE.get(value, value) if isinstance(value, str) else value
            for key, value in json.loads(line).items()
        }
        for line, _ in _whole_lines(Path(path))
    ]


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


def _whole_lines(path: Path) -> Iterator[tuple[bytes, int | None]]:
    """Each line (newline included) and its step; an incomplete last line is left out."""
    with open_reading(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError(f"{type(record).__name__} instead of an object")
            except ValueError as error:
                if not line.endswith(b"\n"):
                    return
                raise ValueError(f"{path}, line {number} is not a JSON object ({error}); fix or delete it") from error
            yield line if line.endswith(b"\n") else line + b"\n", record.get("step")
