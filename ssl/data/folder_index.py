"""The walk through a large folder, kept between commands as long as no folder below it has changed."""

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wildfern.generators.compile_cache import say
from wildfern.ssl.data.folder_walk import FolderWalk, UnfinishedWalk, folder_state, unopened, walk_folder
from wildfern.ssl.data.index_file import IndexArrays, lasting_index
from wildfern.ssl.data.path_store import PathStore
from wildfern.ssl.data.text_arrays import texts
from wildfern.ssl.data.usable_files import fault_of

KEPT_FROM = 10_000  # files and folders: fewer are walked in less than a second
SAMPLED = 64  # files whose size and time are compared
MOST_FAULTS = 1000  # that are looked at again

_VERSION = 1  # of the walk: raise it when the same folder gives other arrays
_TICK = 2 * 10**9  # ns; a change within the same tick of a file system's clock goes unseen: FAT has the longest


def open_walk(root: str, folder: Path | None) -> tuple[FolderWalk, bytes | None]:
    """The walk through `root`, from its index in `folder` if that is current, and a stamp of the walk that is in an index.

    A walk of fewer than `KEPT_FROM` files and folders has no index, and no stamp. Neither has one of which a folder was changed
    within two seconds of its start: a later change could have the same time. A line on standard error says if an index was made.
    """
    if folder is None:
        return walk_folder(root), None
    name = index_name("folder", [_VERSION, os.path.abspath(root)])
    begun = None
    if not os.path.lexists(folder / f"{name}.index"):
        begun = UnfinishedWalk(root)
        if begun.go_on(KEPT_FROM):
            return FolderWalk(root, begun.arrays()), None
    kept = True

    def worth_keeping(arrays: IndexArrays) -> bool:
        nonlocal kept
        kept = _was_at_rest(arrays) and _is_current(root, arrays)
        return kept

    built: IndexArrays | None = None

    def build() -> IndexArrays:
        nonlocal built
        built = _stamped(root, begun or UnfinishedWalk(root))
        return built

    arrays = lasting_index(
        name,
        is_current=lambda arrays: _is_current(root, arrays),
        build=build,
        worth_keeping=worth_keeping,
        folder=folder,
    )
    walk = FolderWalk(root, arrays)
    if built is not None and arrays is not built:  # it was written, and is mapped
        say(f"wildfern: {root}: index of {len(walk.names):,} images kept in {folder}; later starts use it")
    return walk, arrays["stamp"].tobytes() if kept else None


def index_name(kind: str, parts: list[object]) -> str:
    """The name of the index of what these parts describe."""
    user = os.getuid() if hasattr(os, "getuid") else None  # others may read other folders
    text = ascii([*parts, user])
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def file_states(
    root: str, names: PathStore, most: int, entries: NDArray[np.integer] | None = None
) -> NDArray[np.int64]:
    """Entry, bytes and time of change of up to `most` evenly spaced files, or those of `entries`: int64[M, 3]; -1 if unknown."""
    count = len(names) if entries is None else len(entries)
    places = np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))
    chosen = places if entries is None else entries[places]
    states = [(entry, *_size_and_time(os.path.join(root, names[entry]))) for entry in chosen.tolist()]
    return np.array(states, np.int64).reshape(-1, 3)


def are_unchanged(root: str, names: PathStore, states: NDArray[np.int64]) -> bool:
    """Whether these files, as from `file_states`, have the same size and time, and could be found at all."""
    return all(
        size >= 0 and (size, changed) == _size_and_time(os.path.join(root, names[entry]))
        for entry, size, changed in states.tolist()
    )


def _stamped(root: str, unfinished: UnfinishedWalk) -> IndexArrays:
    """The arrays of a walk, the states of a sample of its files, and a digest of all of these."""
    unfinished.go_on()
    arrays = unfinished.arrays()
    arrays["sampled"] = file_states(root, FolderWalk(root, arrays).names, SAMPLED)
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).data)
    return {**arrays, "stamp": np.frombuffer(digest.digest(), np.uint8)}


def _was_at_rest(arrays: IndexArrays) -> bool:
    """Whether the walk is large enough, and all folders were at rest when it began."""
    started, listed = arrays["started_and_listed"].tolist()
    return listed >= KEPT_FROM and int(arrays["folder_states"][:, 1:].max()) < started - _TICK


def _is_current(root: str, arrays: IndexArrays) -> bool:
    """Whether another walk would find the same, as far as folders, faults and a sample of the files say."""
    walk = FolderWalk(root, arrays)
    try:
        folders = arrays["folders"].tobytes().split(b"\0")[:-1]
        base = os.fsencode(root)
        for folder, state in zip(folders, arrays["folder_states"].tolist(), strict=True):
            if folder_state(os.stat(os.path.join(base, folder))) != tuple(state):
                return False
    except OSError:
        return False
    faults = walk.faults[:: 1 + len(walk.faults) // MOST_FAULTS]
    if any(fault.reason != _reason_now(walk, fault.name, fault.is_folder) for fault in faults):
        return False
    dangling = texts(arrays["dangling"])
    if any(os.path.exists(walk.path(name)) for name in dangling[:: 1 + len(dangling) // MOST_FAULTS]):
        return False
    return are_unchanged(root, walk.names, arrays["sampled"])


def _reason_now(walk: FolderWalk, name: str, is_folder: bool) -> str | None:
    if not is_folder:
        return fault_of(walk.path(name))
    try:
        with os.scandir(walk.path(name)):
            return None
    except OSError as error:
        return unopened(error)


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
