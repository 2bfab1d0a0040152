"""One walk through a folder of images: names in a fixed order, stored compactly, and unusable files with the reason."""

import os
import stat
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.base import UnreadableImage
from wildfern.ssl.data.file_names import PassedOver, is_hidden, is_image
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.data.path_store import PathStore
from wildfern.ssl.data.worker_threads import check_wanted, worker_threads
from wildfern.ssl.tracking.current_progress import current_progress

_SHOWN_EVERY = 1000  # files
_CHUNK = 512  # headers checked per task of a thread


@dataclass
class FolderScan:
    """Relative paths of the images under `root`; `skipped`: path -> reason; counts and some names of all other files."""

    root: str
    names: PathStore = field(default_factory=PathStore)
    sizes: array = field(default_factory=lambda: array("q"))  # bytes of each file
    skipped: dict[str, str] = field(default_factory=dict)
    others: PassedOver = field(default_factory=PassedOver)
    some_others: list[str] = field(default_factory=list)

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)


def scan_folder(root: str, wanted: Callable[[str], bool]) -> FolderScan:
    """All non-empty files with an image extension whose relative path (with "/") `wanted` accepts, depth first by name.

    Hidden files and folders, and those of operating systems (Thumbs.db), are ignored. Links are followed; a folder that is
    reached again is not entered again.
    """
    scan, progress = FolderScan(root), current_progress()
    for number, (name, entry) in enumerate(files_below(scan)):
        if number % _SHOWN_EVERY == 0 and number:
            progress.detail(f"scanning {root}: {number:,} files")
        if not is_image(name):
            scan.others.add(entry.name)
            if len(scan.some_others) < 3:
                scan.some_others.append(name)
        elif wanted(name):
            size, fault = _size_or_fault(entry)
            if fault is None:
                scan.names.append(name)
                scan.sizes.append(size)
            else:
                scan.skipped[scan.path(name)] = fault
    progress.detail("")
    return scan


def _size_or_fault(entry: os.DirEntry) -> tuple[int, str | None]:
    """Bytes of the file, and a fault that is visible without opening it: a dangling link, a pipe, an empty file."""
    try:
        status = entry.stat()
    except OSError as error:
        return 0, f"cannot be opened: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):  # reading from a pipe would wait forever
        return 0, "not a regular file"
    return status.st_size, None if status.st_size else "empty file"


def good_headers(scan: FolderScan, decoding: Decoding) -> NDArray[np.int64]:
    """Indices (ascending) of the names with a usable header; the others are added to `scan.skipped`."""

    def check(start: int) -> list[tuple[int, str]]:
        faults = []
        for number in range(start, min(start + _CHUNK, len(scan.names))):
            check_wanted()
            try:
                decoding.size(scan.path(scan.names[number]))
            except UnreadableImage as error:
                faults.append((number, error.reason))
        return faults

    good, progress = np.ones(len(scan.names), bool), current_progress()
    with worker_threads("header") as pool:
        for chunk, faults in enumerate(pool.map(check, range(0, len(scan.names), _CHUNK))):
            progress.count(chunk * _CHUNK, len(scan.names), "files", "checking headers")
            for number, reason in faults:
                good[number] = False
                scan.skipped[scan.path(scan.names[number])] = reason
    progress.detail("")
    return np.flatnonzero(good)


def files_below(scan: FolderScan) -> Iterator[tuple[str, os.DirEntry]]:
    """Relative path and entry of all files that are not hidden, depth first by name; adds to `scan.skipped`.

    Links are followed; a folder that is reached again is not entered again.
    """
    entered = {_identity(scan.root)}
    levels = [("", iter(_listing(scan, "")))]
    while levels:
        prefix, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        name = prefix + entry.name
        if not is_folder(entry):
            yield name, entry
        elif (identity := _identity_or_fault(scan, entry)) is not None and identity not in entered:
            entered.add(identity)
            levels.append((name + "/", iter(_listing(scan, name))))


def _listing(scan: FolderScan, name: str) -> list[os.DirEntry]:
    try:
        with os.scandir(scan.path(name)) as entries:
            return sorted((e for e in entries if not is_hidden(e.name)), key=lambda e: os.fsencode(e.name))
    except OSError as error:
        scan.skipped[scan.path(name)] = f"folder cannot be opened: {error.strerror}"
        return []


def is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity_or_fault(scan: FolderScan, entry: os.DirEntry) -> tuple[int, int] | None:
    try:
        return _identity(entry.path)
    except OSError as error:  # it was there a moment ago
        scan.skipped[entry.path] = f"folder cannot be opened: {error.strerror}"
        return None


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
