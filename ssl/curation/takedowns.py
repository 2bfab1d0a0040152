"""Images that were taken down: a list that only grows, kept beside the manifest and honored by every scan and every run."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from wildfern.bounded_json import parse_json
from wildfern.files import open_appending, read_lines, sync_folder, updating
from wildfern.printable import printable
from wildfern.ssl.curation.manifest import CurationError

TAKEDOWNS = "takedowns.jsonl"
_MOST_LINE = 2**20  # bytes
_SHA256 = re.compile("[0-9a-f]{64}")
_MOST_HASH = 2**64


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
    path, found = Path(folder) / TAKEDOWNS, list[Takedown]()
    try:
        for number, line in enumerate(read_lines(path, _MOST_LINE), 1):
            try:
                found.append(_parsed(line))
            except ValueError as error:
                if line is not None and not line.endswith(b"\n"):  # cut off by a kill or a full disk: never confirmed
                    break
                raise CurationError(
                    f"{path} line {number} is damaged: {printable(error)}; restore it from a copy"
                ) from error
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CurationError(f"{path} cannot be read: {error.strerror}") from error
    return found


def add_takedowns(folder: str | Path, takedowns: Sequence[Takedown]) -> None:
    """Append to the list of a curated folder; on the disk when this returns. What is left of a line that was cut off goes.

    Raises OSError if that is impossible, CurationError for a damaged list and a text of more than 1 MiB.
    """
    path = Path(folder) / TAKEDOWNS
    lines = [json.dumps(asdict(one)).encode() + b"\n" for one in takedowns]
    if any(len(line) > _MOST_LINE for line in lines):
        raise CurationError(f"a takedown of more than {_MOST_LINE:,} bytes; write a shorter reason")
    for line in lines:
        try:
            _parsed(line)
        except ValueError as error:  # such as a reason that is no UTF-8: nobody could read the list any more
            raise CurationError(f"that cannot be written into {TAKEDOWNS}: {printable(error)}") from error
    with updating(folder), open_appending(path) as file:
        read_takedowns(folder)
        end, rest = _last_line(path)
        if rest:
            try:
                _parsed(rest)
                lines.insert(0, b"\n")  # of a list that was edited by hand
            except ValueError:
                file.truncate(end)
        content = b"".join(lines)
        while content:  # a nearly full disk takes a part, and the next time raises
            content = content[file.write(content) :]
        os.fsync(file.fileno())
        sync_folder(folder)


def _parsed(line: bytes | None) -> Takedown:
    """A line, None for one that is too long. Raises ValueError for what is no takedown."""
    if line is None:
        raise ValueError(f"more than {_MOST_LINE:,} bytes")
    value = parse_json(line)
    names = [one.name for one in fields(Takedown)]
    if not isinstance(value, dict) or set(value) != set(names):
        raise ValueError(f"not a mapping of {', '.join(names)}")
    one = Takedown(**value)
    if not all(isinstance(text, str) for text in (one.time, one.source, one.container, one.path, one.reason)):
        raise ValueError("time, source, container, path and reason must be texts")
    for name, digest in (("sha256", one.sha256), ("pixels_sha256", one.pixels_sha256 or "0" * 64)):
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise ValueError(f"{name} must be 64 digits of 0-9 and a-f")
    if one.phash is not None and not (type(one.phash) is int and 0 <= one.phash < _MOST_HASH):
        raise ValueError("phash must be a number of 64 bits, or null")
    return one


def _last_line(path: Path) -> tuple[int, bytes]:
    """What follows the last newline of the list, and the byte where it starts."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _MOST_LINE))
        rest = file.read().rpartition(b"\n")[2]
    return size - len(rest), rest
