"""Folders that curation writes: which may be written, by one process at a time, and their history."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wildfern.files import UnsafeFile, open_appending, remove_partial_files
from wildfern.launch.cluster.run_lock import lock
from wildfern.launch.errors import DISK_FAULTS, RunError
from wildfern.launch.output_paths import is_run, written_path
from wildfern.ssl.curation.curate import MARKS
from wildfern.ssl.curation.feature_store import FEATURES
from wildfern.ssl.curation.manifest import MANIFEST, VERSIONS, Manifest
from wildfern.ssl.curation.measured_parts import PARTS
from wildfern.ssl.curation.takedowns import TAKEDOWNS

HISTORY = "history.jsonl"
# What a curated folder may have before its first manifest is written.
OWN = {MARKS, TAKEDOWNS, HISTORY, FEATURES, VERSIONS}


def folder_to_write(out: str | Path) -> Path:
    """The folder of `--out`, which is made later. Raises RunError for a name that is impossible, and one with other files."""
    folder = written_path(out)
    try:
        os.stat(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RunError(f"--out {out}: {error.strerror}") from error
    if folder.is_file():
        raise RunError(f"--out {out} is a file; name a folder")
    if is_run(folder):
        raise RunError(f"--out {out} is the folder of a run; name another one")
    others = [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if not _is_utf8(folder):
        raise RunError(f"--out {out!r} is no name in UTF-8, which the libraries that write the manifest need")
    if set(others) - OWN and MANIFEST not in others:
        others = sorted(set(others) - OWN)
        raise RunError(
            f"--out {out} is a folder with other files ({', '.join(sorted(others)[:3])}); name a new or empty one"
        )
    return folder


def existing_folder(folder: str | Path) -> Path:
    """A folder with a manifest. Raises RunError or CurationError for another one."""
    found = written_path(folder)
    if not _is_utf8(found):
        raise RunError(f"{folder!r} is no name in UTF-8, which the libraries that read the manifest need")
    Manifest(found).close()
    return found


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Let no other process write into a curated folder meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {folder}: {error.strerror}") from error
    with curation_disk_errors(folder), lock(folder, "wait for it, or stop it"):
        for below in (folder, folder / PARTS, folder / VERSIONS, folder / FEATURES):
            remove_partial_files(below)
        yield


@contextmanager
def curation_disk_errors(folder: Path) -> Iterator[None]:
    """A full or read-only disk in the user's words."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        raise RunError(
            f"cannot write {error.filename or folder}: {error.strerror}. Free space or change the permissions, then repeat "
            "the command; a scan goes on where it was"
        ) from error


def log(folder: Path, entry: dict[str, Any]) -> None:
    """Append to the history of a curated folder."""
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry}) + "\n"
    try:
        with open_appending(folder / HISTORY) as file:
            file.write(line.encode())
    except UnsafeFile as error:
        raise RunError(f"{error.filename} {error.strerror}") from error


def _is_utf8(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False
