"""One walk through a folder of images, as arrays that an index keeps: names in a fixed order, sizes, faults, folders."""

import os
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.file_names import PassedOver, is_image, is_litter
from wildfern.ssl.data.index_file import IndexArrays
from wildfern.ssl.data.path_store import PathStore
from wildfern.ssl.data.text_arrays import as_text, texts
from wildfern.ssl.data.usable_files import usable_files
from wildfern.ssl.tracking.current_progress import current_progress

_SHOWN_EVERY = 1000  # files
_MEASURED_BY_ONE = 10_000  # files and folders, before a loop is compiled for more


@dataclass(frozen=True)
class Fault:
    """A path below the root that cannot be used, as is seen without reading: a dangling link, a pipe, an empty file."""

    name: str
    reason: str
    is_folder: bool = False


class FolderWalk:
    """The images under `root`, depth first by name: `names` with "/", `sizes` int64[N], and what else was there.

    Links are followed; a folder that is reached again is not entered again. Hidden files and folders, and those of operating
    systems (Thumbs.db), are ignored. `faults` are in the order of the walk; `others` counts files that are no images.
    """

    def __init__(self, root: str, arrays: IndexArrays) -> None:
        self.root = root
        self.arrays = arrays
        self.names = PathStore.of(arrays, "names")
        self.sizes: NDArray[np.int64] = arrays["sizes"]
        parts = zip(
            texts(arrays["fault_names"]), texts(arrays["fault_reasons"]), arrays["fault_is_folder"], strict=True
        )
        self.faults = [Fault(name, reason, bool(is_folder)) for name, reason, is_folder in parts]
        self.others = PassedOver.of(dict(zip(texts(arrays["others"]), arrays["other_counts"].tolist(), strict=True)))
        self.some_others = texts(arrays["some_others"])

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def folder_names(self) -> list[str]:
        """The folders that were found, by their paths below the root, which is "" and the first."""
        return [os.fsdecode(name) for name in self.arrays["folders"].tobytes().split(b"\0")[:-1]]

    def folder_numbers(self) -> NDArray[np.int32]:
        """The number of the folder of each image: int32[N]."""
        return np.repeat(self.arrays["run_folders"], np.diff(self.arrays["run_ends"], prepend=0))


def walk_folder(root: str) -> FolderWalk:
    """The whole walk through `root`."""
    walk = UnfinishedWalk(root)
    walk.go_on()
    return FolderWalk(root, walk.arrays())


@dataclass
class _Run:
    """Files of one folder, without its path, that follow each other in the order of the walk."""

    names: list[str] = field(default_factory=list)
    sizes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    faults: list[tuple[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)  # links that may become folders


@dataclass
class _Folder:
    """A folder that was entered."""

    prefix: str  # of the names of its files
    number: int
    path: str
    parts: Iterator[_Run | str] | None = None  # to come, in order: runs of files, names of folders; None: not listed


class UnfinishedWalk:
    """A walk through `root` that can be interrupted, and what was found so far."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._started = time.time_ns()
        self._listed = 0  # files and folders
        self._names, self._sizes = PathStore(), array("q")
        self._runs: list[tuple[int, int]] = []  # number of the folder, number of the image behind the last one
        self._folders: list[str] = []
        self._states: list[tuple[int, int, int]] = []
        self._entered: set[tuple[int, int]] = set()
        self._faults: list[Fault] = []
        self._others, self._some_others = PassedOver(), list[str]()
        self._dangling: list[str] = []
        self._spellings: set[str] = set()  # of extensions of images
        self._progress, self._shown = current_progress(), _SHOWN_EVERY  # the next place to show
        self._open: list[_Folder] = []  # the innermost one last
        os.stat(root)  # its OSError is raised; those of folders below are faults
        self._enter("")

    def go_on(self, most: int | None = None) -> bool:
        """Walk on; False, for another call to go on, before more than `most` files and folders in all are looked at."""
        while self._open:
            folder = self._open[-1]
            if folder.parts is None:
                entries = self._list(folder)
                if most is not None and self._listed + len(entries) > most:
                    return False
                folder.parts = iter(self._parts(folder, entries))
            part = next(folder.parts, None)
            if part is None:
                self._open.pop()
            elif isinstance(part, str):
                self._enter(folder.prefix + part)
            else:
                self._add(folder, part)
        self._progress.detail("")
        return True

    def _enter(self, name: str) -> None:
        path = os.path.join(self._root, name)
        try:
            status = os.stat(path)  # before it is listed, so that a change during the walk is seen by its time
        except OSError as error:  # it was there a moment ago
            self._unopened(name, error)
            return
        number, identity = len(self._folders), (status.st_dev, status.st_ino)
        self._folders.append(name)
        self._states.append(folder_state(status))
        if identity not in self._entered:
            self._entered.add(identity)
            self._open.append(_Folder(f"{name}/" if name else "", number, path))

    def _unopened(self, name: str, error: OSError) -> None:
        self._faults.append(Fault(name, unopened(error), is_folder=True))

    def _list(self, folder: _Folder) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder.path) as listing:
                return list(listing)
        except OSError as error:
            self._unopened(self._folders[folder.number], error)
            return []

    def _parts(self, folder: _Folder, entries: list[os.DirEntry[str]]) -> list[_Run | str]:
        names = [entry.name for entry in entries]
        ascii_only = "".join(names).isascii()
        if ascii_only and self._are_all_images(entries, names):
            names.sort()
            parts: list[_Run | str] = [_Run(names)]
            if self._shown <= len(names):
                self._show(len(names))
        else:
            entries.sort(key=attrgetter("name") if ascii_only else lambda entry: os.fsencode(entry.name))
            parts = self._sorted_out(entries)
        self._listed += len(entries)
        self._shown -= len(entries)
        many = self._listed > _MEASURED_BY_ONE
        for part in parts:
            if isinstance(part, _Run) and part.names:
                part.names, part.sizes, part.faults = usable_files(folder.path, part.names, many)
        return parts

    def _are_all_images(self, entries: list[os.DirEntry[str]], names: list[str]) -> bool:
        """Whether these are files with extensions that were seen before, and none is hidden: the most frequent kind of folder."""
        if "." in {name[0] for name in names} or not {name[name.rfind(".") :] for name in names} <= self._spellings:
            return False
        try:
            return True not in [entry.is_dir() for entry in entries]
        except OSError:  # a link to itself
            return False

    def _sorted_out(self, entries: list[os.DirEntry[str]]) -> list[_Run | str]:
        run = _Run()
        parts: list[_Run | str] = [run]
        spellings = self._spellings
        for place, entry in enumerate(entries):
            if place == self._shown:
                self._show(place)
            name = entry.name
            if name[0] == ".":
                continue
            extension = name[name.rfind(".") :]
            is_of_image = extension in spellings
            if not is_of_image and is_litter(name):
                continue
            try:
                is_below = entry.is_dir()
            except OSError:  # a link to itself
                is_below = False
            if is_below:
                run = _Run()
                parts += [name, run]
            elif is_of_image or is_image(name):
                spellings.add(extension)
                run.names.append(name)
            else:
                run.others.append(name)
                if entry.is_symlink() and not _is_there(entry):
                    run.dangling.append(name)
        return parts

    def _show(self, place: int) -> None:
        self._progress.detail(f"scanning {self._root}: {self._listed + place:,} files")
        self._shown = place + _SHOWN_EVERY

    def _add(self, folder: _Folder, run: _Run) -> None:
        prefix = folder.prefix
        if run.names:
            self._names.append_all(run.names, prefix)
            self._sizes.frombytes(run.sizes.tobytes())
            self._runs.append((folder.number, len(self._names)))
        self._faults += [Fault(prefix + name, reason) for name, reason in run.faults]
        self._dangling += [prefix + name for name in run.dangling]
        for name in run.others:
            self._others.add(name)
            if len(self._some_others) < 3:
                self._some_others.append(prefix + name)

    def arrays(self) -> IndexArrays:
        """Those of a `FolderWalk`, of a walk that is finished."""
        runs = np.array(self._runs, np.int64).reshape(-1, 2)
        folders = b"".join(os.fsencode(name) + b"\0" for name in self._folders)
        return {
            **self._names.arrays("names"),
            "sizes": np.frombuffer(self._sizes, np.int64) if self._sizes else np.zeros(0, np.int64),
            "run_folders": runs[:, 0].astype(np.int32),
            "run_ends": runs[:, 1].copy(),
            "folders": np.frombuffer(folders, np.uint8),
            "folder_states": np.array(self._states, np.int64).reshape(-1, 3),
            "fault_names": as_text([fault.name for fault in self._faults]),
            "fault_reasons": as_text([fault.reason for fault in self._faults]),
            "fault_is_folder": np.array([fault.is_folder for fault in self._faults], bool),
            "others": as_text(list(self._others.counts)),
            "other_counts": np.array(list(self._others.counts.values()), np.int64),
            "some_others": as_text(self._some_others),
            "dangling": as_text(self._dangling),
            "started_and_listed": np.array([self._started, self._listed], np.int64),
        }


def folder_state(status: os.stat_result) -> tuple[int, int, int]:
    """What changes if a file or folder in this folder is added, removed or renamed, or if it is another folder."""
    return status.st_ino & 2**63 - 1, status.st_mtime_ns, status.st_ctime_ns


def is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def unopened(error: OSError) -> str:
    """Why a folder cannot be listed."""
    return f"folder cannot be opened: {error.strerror}"


def _is_there(entry: os.DirEntry[str]) -> bool:
    try:
        entry.stat()
    except OSError:
        return False
    return True
