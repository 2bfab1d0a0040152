"""Images that were taken down: a list that only grows, kept beside the manifest and honored by every scan and every run."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from wildfern.bounded_json import parse_json
from wildfern.files import open_appending, read_lines, updating
from wildfern.ssl.curation.manifest import CurationError

TAKEDOWNS = "takedowns.jsonl"
_MOST_LINE = 2**16  # bytes


@dataclass(frozen=True)
class Takedown:
    """One image that must not be used any more: where it was, what it is (also re-encoded, by its hash), when and why."""

    time: str  # ISO 8601
    sha256: str
    pixels_sha256: str | None
    phash: int | None  # null: featureless
    source: str
    container: str
    path: str
    reason: str


def read_takedowns(folder: str | Path) -> list[Takedown]:
    """The list of a curated folder, in order. Raises CurationError naming the line for a damaged one."""
    path, found = Path(folder) / TAKEDOWNS, []
    try:
        for number, line in enumerate(read_lines(path, _MOST_LINE), 1):
            if line is not None and not line.endswith(b"\n"):  # cut off by a kill or a full disk: never confirmed
                break
            try:
                found.append(Takedown(**parse_json((line or b"").decode())))
            except (ValueError, TypeError) as error:
                raise CurationError(f"{path} line {number} is damaged: {error}; restore it from a copy") from error
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CurationError(f"{path} cannot be read: {error.strerror}") from error
    return found


def add_takedowns(folder: str | Path, takedowns: Sequence[Takedown]) -> None:
    """Append to the list of a curated folder; on the disk when this returns. Raises OSError if that is impossible."""
    path = Path(folder) / TAKEDOWNS
    lines = "".join(json.dumps(asdict(one)) + "\n" for one in takedowns).encode()
    with updating(folder), open_appending(path) as file:
        end = file.seek(0, os.SEEK_END)
        if end and _last_byte(path) != b"\n":  # the rest of a line that was cut off
            file.write(b"\n")
        file.write(lines)
        os.fsync(file.fileno())


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
