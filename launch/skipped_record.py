"""The files that a run could not use, as its `skipped.jsonl` lists them."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from wildfern.files import replacing
from wildfern.launch.kept_aside import kept_aside
from wildfern.ssl.tracking import read_undamaged


class SkippedRecord:
    """A file with a row for each of them, sorted by name. It is read when it was changed by others, not for each new row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reasons: dict[str, str] = {}  # by name, in the version of the file that is known
        self._known: tuple[int, ...] | None = None

    def note(self, skipped: Mapping[str, str], say: Callable[[str], None]) -> None:
        """Add files, each with the reason; earlier rows stay. A damaged file is set aside first, and `say` gets a message."""
        if not skipped:
            return
        damage: object = None
        before, version = self._reasons, _version(self.path)
        if version is None or version != self._known:
            before, damage = _read(self.path)
        if damage is not None:
            say(kept_aside(self.path, damage))
        elif skipped.keys() <= before.keys():
            self._reasons, self._known = before, version
            return
        reasons = {**skipped, **before}
        rows = (json.dumps({"file": name, "reason": why}) + "\n" for name, why in sorted(reasons.items()))
        with replacing(self.path) as beside, beside.open("w", encoding="ascii", newline="\n") as file:
            file.writelines(rows)
        self._reasons, self._known = reasons, _version(self.path)


def _version(path: Path) -> tuple[int, ...] | None:
    """What tells one content of a file from another; None without a file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> tuple[dict[str, str], object]:
    """The reasons by file, and what is wrong with the file; None if nothing is."""
    try:
        records, damage = read_undamaged(path)
    except FileNotFoundError:
        return {}, None
    except OSError as error:
        return {}, error
    rows = [row for row in records if isinstance(row.get("file"), str) and isinstance(row.get("reason"), str)]
    if damage is None and len(rows) < len(records):
        damage = "a line without the texts file and reason"
    return {row["file"]: row["reason"] for row in rows}, damage
