"""The numbers in the JSON lines of a run over the steps, read within limits of memory."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wildfern.bounded_json import parse_json
from wildfern.files import read_lines

MOST_BYTES = 2**30  # of a file; what follows is left out
MOST_LINE = 2**20  # bytes
MOST_KEYS = 100
MOST_POINTS = 40_000  # of a key; then every other one is dropped
MOST_VALUE = 1e100  # larger ones cannot be drawn
MOST_STEP = 2**53


@dataclass
class Series:
    """The finite values of one key over the steps."""

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


class _Points:
    """Values over the steps; a later one for the same step replaces the earlier one."""

    def __init__(self) -> None:
        self.steps, self.values, self.in_order = array("d"), array("d"), True

    def add(self, step: int, value: float) -> bool:
        """Add a value. True if half of the others had to be dropped."""
        if self.steps and step == self.steps[-1]:
            self.values[-1] = value
            return False
        self.in_order = self.in_order and (not self.steps or step > self.steps[-1])
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) < MOST_POINTS:
            return False
        self._sort()
        dropped = len(self.steps) >= MOST_POINTS // 2
        if dropped:  # the last one stays
            self.steps, self.values = (
                self.steps[(len(self.steps) + 1) % 2 :: 2],
                self.values[(len(self.values) + 1) % 2 :: 2],
            )
        return dropped

    def series(self) -> Series:
        self._sort()
        return Series(self.steps.tolist(), self.values.tolist())

    def _sort(self) -> None:
        if self.in_order:
            return
        steps, values = np.array(self.steps)[::-1], np.array(self.values)[::-1]
        steps, last = np.unique(steps, return_index=True)
        self.steps, self.values, self.in_order = array("d", steps), array("d", values[last]), True


def read_series(path: Path, remarks: list[str]) -> dict[str, Series]:
    """Numeric keys of JSON lines, in order of first appearance; later lines for the same step replace earlier ones.

    What is missing, damaged, not finite or over a limit is left out; `remarks` gets a message for each such kind.
    """
    points: dict[str, _Points] = {}
    broken = not_finite = size = 0
    thinned, further = set(), set()
    try:
        for line in read_lines(path, MOST_LINE):
            size += len(line or b"")
            if size > MOST_BYTES:
                remarks.append(f"{path.name}: only the first {MOST_BYTES:,} bytes are read")
                break
            if line is not None and not line.strip():
                continue
            entry = _entry(line)
            if entry is None:
                broken += 1
                continue
            for key, value in _numbers(entry):
                if not abs(value) <= MOST_VALUE:
                    not_finite += 1
                elif key in points or len(points) < MOST_KEYS:
                    if points.setdefault(key, _Points()).add(entry["step"], value):
                        thinned.add(key)
                elif len(further) < MOST_KEYS:
                    further.add(key)
    except FileNotFoundError:
        return {}
    except OSError as error:
        remarks.append(f"{path.name} cannot be read: {error.strerror or error}")
    if broken:
        remarks.append(f"{path.name}: {broken} unreadable line{'s' * (broken > 1)} left out")
    if not_finite:
        remarks.append(f"{path.name}: {not_finite} value{'s' * (not_finite > 1)} NaN or infinite")
    if further:
        remarks.append(f"{path.name}: keys after the first {MOST_KEYS} are left out")
    if thinned:
        remarks.append(f"{path.name}: more than {MOST_POINTS:,} points of a key are thinned")
    return {key: found.series() for key, found in points.items()}


def _entry(line: bytes | None) -> dict[str, Any] | None:
    """The mapping of a line with a step; None for anything else."""
    if line is None:
        return None
    try:
        entry = parse_json(line)
    except ValueError:
        return None
    step = entry.get("step") if isinstance(entry, dict) else None
    is_step = isinstance(step, int) and not isinstance(step, bool) and 0 <= step < MOST_STEP
    return entry if is_step else None


def _numbers(entry: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in entry.items():
        if key != "step" and isinstance(value, int | float) and not isinstance(value, bool):
            yield key, float(value)
