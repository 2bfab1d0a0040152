"""The parts of a checkpoint that several ranks write into one folder: each announces its file, and the main rank waits for all.

An announcement `.written_RANK.json` has name, size and SHA-256 of a file that is on the disk. It is a file rather than a
message, because the process group belongs to training meanwhile.
"""

import json
import os
import threading
import time
from errno import ENOENT
from pathlib import Path

from wildfern.bounded_json import read_json
from wildfern.files import write_text
from wildfern.ssl.training.checksums import Sum, is_sum, measured, to_disk

_EVERY = 0.05  # s between looks; the folder may be on a network file system
_FOLDER_WITHIN = 120.0  # s: network file systems show a new folder with a delay
_MOST_BYTES = 2**16


class Abandoned(Exception):
    """Some other part cannot be written; the error is that of its rank."""


def wait_for_folder(folder: Path, abandon: threading.Event, seconds: float = _FOLDER_WITHIN) -> None:
    """Wait until the main rank has made the folder; raises OSError if this host does not see it in time."""
    until = time.monotonic() + seconds
    while not folder.is_dir():
        if abandon.wait(_EVERY):
            raise Abandoned
        if time.monotonic() > until:
            raise OSError(
                ENOENT,
                "this rank does not see the folder that rank 0 makes here: with sharded checkpoints the run folder must be on a "
                "file system that all hosts share",
                str(folder),
            )


def announce_part(folder: Path, rank: int, path: Path | None) -> None:
    """Sync a file that was just written, and announce it."""
    assert path is not None, "a part of a checkpoint is a file"
    to_disk(path)
    write_text(folder / _name(rank), json.dumps({"file": path.name, **measured(path)}))


def collected(folder: Path, ranks: int, abandon: threading.Event) -> dict[str, Sum]:
    """Size and SHA-256 of the files of all ranks by name, once all are announced; deletes the announcements.

    Raises Abandoned when `abandon` is set before.
    """
    found: dict[str, Sum] = {}
    missing = set(range(ranks))
    while True:
        there = set(os.listdir(folder))  # a network file system may keep answering that a single file is missing
        for rank in sorted(missing):
            if _name(rank) in there:
                one = read_json(folder / _name(rank), _MOST_BYTES)
                name = one.pop("file", None) if isinstance(one, dict) else None
                if not isinstance(name, str) or not is_sum(one):
                    raise ValueError(f"{folder / _name(rank)} is not what rank {rank} wrote")
                found[name] = one
                missing.remove(rank)
        if not missing:
            break
        if abandon.wait(_EVERY):
            raise Abandoned
    for rank in range(ranks):
        (folder / _name(rank)).unlink()
    return found


def _name(rank: int) -> str:
    return f".written_{rank:05d}.json"
