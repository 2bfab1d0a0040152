"""One walk through a folder of images: names in a fixed order, stored compactly, and unusable files with the reason."""

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.base import UnreadableImage
from wildfern.ssl.data.image_file import EXTENSIONS, Decoding
from wildfern.ssl.data.path_store import PathStore

_CHUNK = 512  # headers checked per task of a thread


@dataclass
class FolderScan:
    """Relative paths of the images under `root`; `skipped`: path -> reason; number and some names of all other files."""

    root: str
    names: PathStore = field(default_factory=PathStore)
    skipped: dict[str, str] = field(default_factory=dict)
    num_others: int = 0
    some_others: list[str] = field(default_factory=list)

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)


def scan_folder(root: str, wanted: Callable[[str], bool]) -> FolderScan:
    """All non-empty files with an image extension whose relative path (with "/") `wanted` accepts, depth first by name.

    Hidden files and folders are ignored. Links are followed; a folder that is reached again is not entered again.
    """
    scan = FolderScan(root)
    for name, entry in _files(scan):
        if not name.lower().endswith(EXTENSIONS):
            scan.num_others += 1
            if len(scan.some_others) < 3:
                scan.some_others.append(name)
        elif wanted(name):
            fault = _fault(entry)
            if fault is None:
                scan.names.append(name)
            else:
                scan.skipped[scan.path(name)] = fault
    return scan


def _fault(entry: os.DirEntry) -> str | None:
    """Faults visible without opening the file: a dangling link, a pipe, an empty file."""
    try:
        status = entry.stat()
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):  # reading from a pipe would wait forever
        return "not a regular file"
    return None if status.st_size else "empty file"


def good_headers(scan: FolderScan, decoding: Decoding) -> NDArray[np.int64]:
    """Indices (ascending) of the names with a usable header; the others are added to `scan.skipped`."""

    def check(start: int) -> list[tuple[int, str]]:
        faults = []
        for number in range(start, min(start + _CHUNK, len(scan.names))):
            try:
                decoding.size(scan.path(scan.names[number]))
            except UnreadableImage as error:
                faults.append((number, error.reason))
        return faults

    good = np.ones(len(scan.names), bool)
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1)), "header") as pool:
        for faults in pool.map(check, range(0, len(scan.names), _CHUNK)):
            for number, reason in faults:
                good[number] = False
                scan.skipped[scan.path(scan.names[number])] = reason
    return np.flatnonzero(good)


def _files(scan: FolderScan) -> Iterator[tuple[str, os.DirEntry]]:
    entered = {_identity(scan.root)}
    levels = [("", iter(_listing(scan, "")))]
    while levels:
        prefix, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        name = prefix + entry.name
        if not _is_folder(entry):
            yield name, entry
        elif (identity := _identity(entry.path)) not in entered:
            entered.add(identity)
            levels.append((name + "/", iter(_listing(scan, name))))


def _listing(scan: FolderScan, name: str) -> list[os.DirEntry]:
    try:
        with os.scandir(scan.path(name)) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: os.fsencode(e.name))
    except OSError as error:
        scan.skipped[scan.path(name)] = f"folder cannot be opened: {error.strerror}"
        return []


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
