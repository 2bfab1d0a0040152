"""The numbers in the JSON lines of a run over the steps, read within limits of memory."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wildfern.bounded_json import parse_json
from wildfern.files import read_lines
from wildfern.ssl.evaluation.report.downsampling import Downsampling, Series
from wildfern.ssl.tracking.json_line import MOST_LINE, last_lines
from wildfern.ssl.tracking.jsonl import NOT_FINITE

AT_ONCE = 1024  # lines
MOST_BYTES = 2**30  # of a file; what follows is left out
MOST_KEYS = 100
MOST_POINTS = 10_000  # of a key; of more values, means are kept
MOST_VALUE = 1e100  # larger ones cannot be drawn
MOST_STEP = 2**53


def read_series(path: Path, remarks: list[str], whole: bool = True) -> dict[str, Series]:
    """Numeric keys of JSON lines, in order of first appearance; later lines for the same step replace earlier ones.

    What is missing, damaged, not finite or over a limit is left out; `remarks` gets a message for each such kind. Unless
    `whole`, only the last lines are read, some thousands of them, for the last values.
    """
    points: dict[str, Downsampling] = {}
    broken = not_finite = size = taken = 0
    further = set()
    lines: Iterable[bytes | None] = read_lines(path, MOST_LINE) if whole else last_lines(path)
    try:
        for line in lines:
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
            step = entry.pop("step")
            for key, found in entry.items():
                value = found if type(found) is float else _number(found)
                if value is None:
                    continue
                if not abs(value) <= MOST_VALUE:
                    not_finite += 1
                elif key in points or len(points) < MOST_KEYS:
                    if key not in points:
                        points[key] = Downsampling(MOST_POINTS)
                    points[key].steps.append(step)
                    points[key].values.append(value)
                elif len(further) < MOST_KEYS:
                    further.add(key)
            taken += 1
            if taken % AT_ONCE == 0:
                for collected in points.values():
                    collected.settle()
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
    series = {key: collected.series() for key, collected in points.items()}
    if any(one.figures is not None for one in series.values()):
        remarks.append(f"{path.name}: more than {MOST_POINTS:,} points of a key are thinned")
    return series


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


def _number(value: Any) -> float | None:
    """A value as a number; None if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return NOT_FINITE.get(value) if isinstance(value, str) else None
