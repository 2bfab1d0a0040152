"""Images under a folder, as one list; all files under it; and which of them have a usable header."""

import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.base import UnreadableImage
from wildfern.ssl.data.file_names import is_hidden
from wildfern.ssl.data.folder_walk import is_folder, walk_folder
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.data.path_store import PathStore
from wildfern.ssl.data.worker_threads import check_wanted, worker_threads
from wildfern.ssl.tracking.current_progress import current_progress

_CHUNK = 512  # headers checked per task of a thread


@dataclass
class FolderScan:
    """Relative paths of images under `root`; `skipped`: path -> reason."""

    root: str
    names: PathStore = field(default_factory=PathStore)
    sizes: array = field(default_factory=lambda: array("q"))  # bytes of each file
    skipped: dict[str, str] = field(default_factory=dict)

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)


def scan_folder(root: str, wanted: Callable[[str], bool]) -> FolderScan:
    """The images of a `FolderWalk` whose relative path `wanted` accepts."""
    walk, scan = walk_folder(root), FolderScan(root)
    for fault in walk.faults:
        if fault.is_folder or wanted(fault.name):
            scan.skipped[scan.path(fault.name)] = fault.reason
    for name, size in zip(walk.names, walk.sizes.tolist(), strict=True):
        if wanted(name):
            scan.names.append(name)
            scan.sizes.append(size)
    return scan


def good_headers(scan: FolderScan, decoding: Decoding) -> NDArray[np.int64]:
    """Indices (ascending) of the names with a usable header; the others are added to `scan.skipped`."""
    faults = header_faults(lambda number: scan.path(scan.names[number]), len(scan.names), decoding)
    scan.skipped |= {scan.path(scan.names[number]): reason for number, reason in faults.items()}
    return np.delete(np.arange(len(scan.names)), list(faults))


def header_faults(path_of: Callable[[int], str], count: int, decoding: Decoding) -> dict[int, str]:
    """Number, ascending, of each of `count` files that has no usable header, and the reason. Files are read in threads."""

    def check(start: int) -> list[tuple[int, str]]:
        faults = []
        for number in range(start, min(start + _CHUNK, count)):
            check_wanted()
            try:
                decoding.header_size(path_of(number))
            except UnreadableImage as error:
                faults.append((number, error.reason))
        return faults

    found: dict[int, str] = {}
    progress = current_progress()
    with worker_threads("header") as pool:
        for chunk, faults in enumerate(pool.map(check, range(0, count, _CHUNK))):
            progress.count(chunk * _CHUNK, count, "files", "checking headers")
            found.update(faults)
    progress.detail("")
    return found


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


def _identity_or_fault(scan: FolderScan, entry: os.DirEntry) -> tuple[int, int] | None:
    try:
        return _identity(entry.path)
    except OSError as error:  # it was there a moment ago
        scan.skipped[entry.path] = f"folder cannot be opened: {error.strerror}"
        return None


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
