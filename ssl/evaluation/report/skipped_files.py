"""What `skipped.jsonl` of a run folder says: how many files could not be used, and the first of them with the reasons."""

from dataclasses import dataclass
from pathlib import Path

from wildfern.bounded_json import parse_json
from wildfern.files import read_lines

MOST_LINE = 2**16  # bytes
MOST_LINES = 1_000_000
SHOWN = 5


@dataclass(frozen=True)
class SkippedFiles:
    """`count` files, of which `first` are (name, reason)."""

    count: int = 0
    first: tuple[tuple[str, str], ...] = ()


def read_skipped(path: Path, remarks: list[str]) -> SkippedFiles:
    """The content of a `skipped.jsonl`; nothing if there is none. `remarks` gets a message about what cannot be read."""
    first: list[tuple[str, str]] = []
    count = broken = 0
    try:
        for line in read_lines(path, MOST_LINE):
            if count + broken >= MOST_LINES:
                remarks.append(f"{path.name}: lines after the first {MOST_LINES:,} are not counted")
                break
            try:
                row = parse_json(line) if line is not None else None
            except ValueError:
                row = None
            if not (isinstance(row, dict) and isinstance(row.get("file"), str) and isinstance(row.get("reason"), str)):
                broken += 1
                continue
            count += 1
            if len(first) < SHOWN:
                first.append((row["file"], row["reason"]))
    except FileNotFoundError:
        return SkippedFiles()
    except OSError as error:
        remarks.append(f"{path.name} cannot be read: {error.strerror or error}")
    if broken:
        remarks.append(f"{path.name}: {broken} unreadable line{'s' * (broken > 1)} left out")
    return SkippedFiles(count, tuple(first))
