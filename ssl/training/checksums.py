"""Checksums of a checkpoint's files, in its manifest `checkpoint.json`, which has a checksum of its own.

A checkpoint may come from a stranger: only regular files inside its folder are read, and the manifest within limits.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from wildfern.bounded_json import read_json
from wildfern.files import UnsafeFile, check_folder, create, open_reading

MANIFEST = "checkpoint.json"
MOST_BYTES = 4 * 2**20  # of the manifest
MOST_FILES = 10_000
_THREADS = 8

Sum = dict[str, Any]  # "bytes" and "sha256" of a file
NONE_KNOWN: Mapping[str, Sum] = {}


class CorruptCheckpoint(ValueError):
    """A checkpoint differs from what was written; the message says how."""


def write_manifest(folder: Path, metadata: dict[str, object], known: Mapping[str, Sum] = NONE_KNOWN) -> None:
    """Write `checkpoint.json` (the JSON values `metadata`, size and SHA-256 of every file) and fsync the whole folder.

    `known` are those of files that other processes have written and synced. SHA-256 rather than something faster, so that
    `sha256sum` can check it; processors have instructions for it.
    """
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files = {name: known.get(name) or measured(path) for name, path in names.items()}
    content = {**metadata, "files": files}
    text = json.dumps({**content, "sha256": _own(content)}, indent=2) + "\n"
    with create(folder / MANIFEST) as file:
        left = memoryview(text.encode())
        while left:
            left = left[file.write(left) :]
    for path in (*folder.rglob("*"), folder):
        if path.relative_to(folder).as_posix() not in known:
            to_disk(path)


def measured(path: Path) -> Sum:
    """Size and SHA-256 of a file that was just written."""
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def check(folder: Path) -> dict[str, Any]:
    """Verify a checkpoint folder and return its metadata; raises CorruptCheckpoint if a file differs from what was written.

    An OSError while reading (a disk error, no permission) is not caught: it does not mean that the checkpoint is damaged.
    """
    metadata = manifest(folder)
    with ThreadPoolExecutor(_THREADS, "checksums") as pool:  # the interpreter's lock is free while a file is hashed
        for _ in pool.map(lambda one: _check_file(folder, *one), metadata.pop("files").items()):
            pass
    return metadata


def _check_file(folder: Path, name: str, written: Sum) -> None:
    try:
        for part in reversed(Path(name).parents[:-1]):
            check_folder(folder / part)
        size, sha256 = _measured(folder / name, written["bytes"])
    except (FileNotFoundError, NotADirectoryError):
        raise CorruptCheckpoint(f"{name} is missing") from None
    except UnsafeFile as error:
        raise CorruptCheckpoint(f"{name} {error.strerror}") from None
    if size != written["bytes"]:
        raise CorruptCheckpoint(f"{name} has {size} bytes, not the {written['bytes']} that were written")
    if sha256 != written["sha256"]:
        raise CorruptCheckpoint(f"the content of {name} differs from what was written (SHA-256)")


def to_disk(path: Path) -> None:
    """fsync a file, or a folder if the system supports it."""
    if os.name == "nt" and path.is_dir():
        return
    # Windows syncs only through a writable handle.
    handle = os.open(path, os.O_RDWR | os.O_BINARY if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def manifest(folder: Path) -> dict[str, Any]:
    """The metadata and the `files` entry of a checkpoint, without reading these files; raises CorruptCheckpoint."""
    try:
        check_folder(folder)
    except UnsafeFile as error:
        raise CorruptCheckpoint(f"it {error.strerror}") from None
    try:
        content = read_json(folder / MANIFEST, MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise CorruptCheckpoint(f"{MANIFEST} is missing") from None
    except UnsafeFile as error:
        raise CorruptCheckpoint(f"{MANIFEST} {error.strerror}") from None
    except ValueError as error:
        raise CorruptCheckpoint(f"{MANIFEST} is not valid: {error}") from None
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or "sha256" not in content or not all(map(is_sum, files.values())):
        raise CorruptCheckpoint(f"{MANIFEST} is not valid, or has no checksums")
    own = content.pop("sha256")
    if own != _own(content):
        raise CorruptCheckpoint(f"{MANIFEST} was changed after it was written")
    if len(files) > MOST_FILES:
        raise CorruptCheckpoint(f"{MANIFEST} names {len(files):,} files, over the limit of {MOST_FILES:,}")
    if outside := [name for name in files if not _is_inside(name)]:
        raise CorruptCheckpoint(f"{MANIFEST} names {outside[0][:100]!r}, which is not a file of the checkpoint")
    return content


def is_sum(written: object) -> bool:
    if not isinstance(written, dict):
        return False
    size, sha256 = written.get("bytes"), written.get("sha256")
    return (
        type(size) is int and size >= 0 and isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) is not None
    )


def _is_inside(name: str) -> bool:
    """Whether this is the relative path of a file in a folder, on every system."""
    plain = name.isprintable() and len(name) <= 200 and not set(name) & set('\\:*?"<>|')
    return plain and not set(name.split("/")) & {"", ".", ".."}


def _measured(path: Path, size: int) -> tuple[int, str | None]:
    """Size and SHA-256 of a regular file; without reading a file of another size than `size`."""
    with open_reading(path) as file:
        found = os.fstat(file.fileno()).st_size
        return found, None if found != size else hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(path: Path) -> str:
    with open_reading(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
