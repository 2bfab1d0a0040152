"""Checksums of a checkpoint's files, kept in its `checkpoint.json`, which carries one of itself."""

import hashlib
import json
import os
import stat
from pathlib import Path

MANIFEST = "checkpoint.json"


class CorruptCheckpoint(ValueError):
    """A checkpoint that is not as it was written; the message says what is wrong with it."""


def write_manifest(folder: Path, metadata: dict[str, object]) -> None:
    """Write `checkpoint.json` (JSON values `metadata`, size and SHA-256 of every file) and bring all of the folder to the disk.

    SHA-256 rather than something faster, so that `sha256sum` can check it; processors of today have instructions for it.
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
    """The facts of a sealed folder whose files are as they were written; raises Damaged where they are not.

    An OSError in reading them (a disk's fault, no permission) passes: it says nothing about what was written.
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
            raise CorruptCheckpoint(f"the bytes of {name} are not those that were written (SHA-256 differs)")
    return metadata


def to_disk(path: Path) -> None:
    """fsync a file, or a folder where the system can."""
    if os.name == "nt" and path.is_dir():
        return
    # Windows brings to the disk only through a handle that may write.
    handle = os.open(path, os.O_RDWR | os.O_BINARY if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def manifest(folder: Path) -> dict[str, object]:
    """The facts and the `files` of a sealed folder, the latter not looked at; raises Damaged."""
    if _size(folder / MANIFEST) is None:
        raise CorruptCheckpoint(f"{MANIFEST} is missing")
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
        own = content.pop("sha256")
        files = content["files"]
        complete = all({"bytes", "sha256"} <= file.keys() for file in files.values())
    except (ValueError, LookupError, TypeError, AttributeError):
        raise CorruptCheckpoint(f"{MANIFEST} is garbled, or has no checksums") from None
    if own != _own(content) or not complete:
        raise CorruptCheckpoint(f"{MANIFEST} was changed after it was written")
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
