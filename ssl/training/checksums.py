"""Checksums of a checkpoint's files, in its manifest `checkpoint.json`, which has a checksum of its own."""

import hashlib
import json
import os
import stat
from pathlib import Path

MANIFEST = "checkpoint.json"


class CorruptCheckpoint(ValueError):
    """A checkpoint differs from what was written; the message says how."""


def write_manifest(folder: Path, metadata: dict[str, object]) -> None:
    """Write `checkpoint.json` (the JSON values `metadata`, size and SHA-256 of every file) and fsync the whole folder.

    SHA-256 rather than something faster, so that `sha256sum` can check it; processors have instructions for it.
    """
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = {**metadata, "files": files}
    text = json.dumps({**content, "sha256": _own(content)}, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    for path in (*folder.rglob("*"), folder):
        to_disk(path)


def check(folder: Path) -> dict[str, object]:
    """Verify a checkpoint folder and return its metadata; raises CorruptCheckpoint if a file differs from what was written.

    An OSError while reading (a disk error, no permission) is not caught: it does not mean that the checkpoint is damaged.
    """
    metadata = manifest(folder)
    for name, written in metadata.pop("files").items():
        path = folder / name
        size = _size(path)
        if size is None:
            raise CorruptCheckpoint(f"{name} is missing")
        if size != written["bytes"]:
            raise CorruptCheckpoint(f"{name} has {size} bytes, not the {written['bytes']} that were written")
        if _sha256(path) != written["sha256"]:
            raise CorruptCheckpoint(f"the content of {name} differs from what was written (SHA-256)")
    return metadata


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


def _size(path: Path) -> int | None:
    """Size of a file in bytes; None if there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def manifest(folder: Path) -> dict[str, object]:
    """The metadata and the `files` entry of a checkpoint, without reading these files; raises CorruptCheckpoint."""
    if _size(folder / MANIFEST) is None:
        raise CorruptCheckpoint(f"{MANIFEST} is missing")
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
        own = content.pop("sha256")
        files = content["files"]
        complete = all({"bytes", "sha256"} <= file.keys() for file in files.values())
    except (ValueError, LookupError, TypeError, AttributeError):
        raise CorruptCheckpoint(f"{MANIFEST} is not valid, or has no checksums") from None
    if own != _own(content) or not complete:
        raise CorruptCheckpoint(f"{MANIFEST} was changed after it was written")
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
