"""Which images of a walk a source has, with their labels and what was left out: kept like the walk, for each set of arguments."""

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.base import SourceFile
from wildfern.ssl.data.fingerprint import Fingerprint, fingerprint_lines
from wildfern.ssl.data.folder_index import MOST_FAULTS, are_unchanged, file_states, index_name
from wildfern.ssl.data.folder_scan import header_faults
from wildfern.ssl.data.folder_walk import FolderWalk
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.data.index_file import IndexArrays, lasting_index
from wildfern.ssl.data.pillow_image import readers
from wildfern.ssl.data.split_folders import SplitFolder
from wildfern.ssl.data.splits import name_in_test
from wildfern.ssl.data.text_arrays import as_text, texts

_VERSION = 1  # of the selection: raise it when the same walk and arguments give other arrays, or files other verdicts


@dataclass(frozen=True)
class Choice:
    """The arguments that a selection depends on.

    share: whether a hash of the names puts files in the test split, and the test fraction; None: all files. checked: how headers
    are checked; None: they are not. classes: the folders whose numbers are labels; None: no labels.
    """

    part: SplitFolder
    share: tuple[bool, float] | None
    checked: Decoding | None
    classes: tuple[str, ...] | None

    def name(self, root: str) -> str:
        """The name of the index of this choice."""
        parts = (self.part.pattern, self.part.without, self.share, self.checked and astuple(self.checked), self.classes)
        return index_name("selection", [_VERSION, os.path.abspath(root), parts, readers(), sys.getfilesystemencoding()])

    def everything(self) -> bool:
        """Whether no name is left out."""
        return self.share is None and not self.part.pattern and not self.part.without


class FolderSelection:
    """Images of a walk: item -> entry of the walk.

    entries: int32[N] or int64[N], ascending. labels: int64[N], -1 for an image outside of the folders of classes; None without
    classes. skipped: path -> reason, in the order of the walk, then those found by their headers. chosen, left_out: images with
    a size whose names were in the split, and names that were not because of their hash.
    """

    def __init__(self, walk: FolderWalk, arrays: IndexArrays) -> None:
        self._walk = walk
        self.entries: NDArray[np.integer] = arrays["entries"]
        self.labels: NDArray[np.int64] | None = arrays.get("labels")
        names = map(walk.path, texts(arrays["skipped"]))
        self.skipped = dict(zip(names, texts(arrays["reasons"]), strict=True))
        self.chosen, self.left_out, total = arrays["counts"].tolist()
        digest = arrays["digest"].tobytes().hex()
        self.fingerprint = Fingerprint(len(self.entries), total, digest) if digest else None

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, item: int) -> str:
        return self._walk.names[int(self.entries[item])]

    def path(self, item: int) -> str:
        return self._walk.path(self.name(item))

    def files(self) -> "SelectedFiles":
        return SelectedFiles(self._walk, self)


class SelectedFiles(Sequence[SourceFile]):
    """The files of a selection; `known_fingerprint`, of names and sizes, where an index has it."""

    def __init__(self, walk: FolderWalk, selection: FolderSelection) -> None:
        self._walk, self._selection = walk, selection
        self.known_fingerprint = selection.fingerprint

    def __len__(self) -> int:
        return len(self._selection)

    @overload
    def __getitem__(self, item: int) -> SourceFile: ...
    @overload
    def __getitem__(self, item: slice) -> list[SourceFile]: ...
    def __getitem__(self, item: int | slice) -> SourceFile | list[SourceFile]:
        if isinstance(item, slice):
            return [self[one] for one in range(*item.indices(len(self)))]
        entry = int(self._selection.entries[item])
        name = self._walk.names[entry]
        return SourceFile(name, int(self._walk.sizes[entry]), self._walk.path(name))


def open_selection(walk: FolderWalk, stamp: bytes | None, choice: Choice, folder: Path | None) -> FolderSelection:
    """The images of the walk that are chosen; from an index in `folder` if the walk has a `stamp`, and the index is of it."""
    if stamp is None:
        return FolderSelection(walk, _selected(walk, choice))

    def is_current(arrays: IndexArrays) -> bool:
        return arrays["stamp"].tobytes() == stamp and are_unchanged(walk.root, walk.names, arrays["faulty"])

    def build() -> IndexArrays:
        arrays = _selected(walk, choice)
        arrays["digest"] = _digest(walk, arrays["entries"])
        arrays["stamp"] = np.frombuffer(stamp, np.uint8)
        return arrays

    return FolderSelection(walk, lasting_index(choice.name(walk.root), is_current, build, is_current, folder))


def _selected(walk: FolderWalk, choice: Choice) -> IndexArrays:
    left_out = 0

    def wanted(name: str) -> bool:
        nonlocal left_out
        if not choice.part.has(name):
            return False
        chosen = choice.share is None or name_in_test(name, choice.share[1]) == choice.share[0]
        left_out += not chosen
        return chosen

    skipped = [(fault.name, fault.reason) for fault in walk.faults if fault.is_folder or wanted(fault.name)]
    if choice.everything():
        entries = np.arange(len(walk.names))
    else:
        entries = np.flatnonzero(np.fromiter((wanted(name) for name in walk.names), bool, len(walk.names)))
    chosen = len(entries)
    faulty: dict[int, str] = {}
    if choice.checked is not None:
        faulty = header_faults(lambda place: walk.path(walk.names[entries[place]]), len(entries), choice.checked)
    skipped += [(walk.names[entries[place]], reason) for place, reason in faulty.items()]
    places = np.fromiter(faulty, np.int64, len(faulty))
    states = file_states(walk.root, walk.names, MOST_FAULTS, entries[places])
    entries = np.delete(entries, places)
    arrays: IndexArrays = {
        "entries": entries.astype(np.int32 if len(walk.names) < 2**31 else np.int64),
        "skipped": as_text([name for name, _ in skipped]),
        "reasons": as_text([reason for _, reason in skipped]),
        "faulty": states,
        "counts": np.array([chosen, left_out, walk.sizes[entries].sum()], np.int64),
        "digest": np.zeros(0, np.uint8),
    }
    if choice.classes is not None:
        arrays["labels"] = _labels(walk, choice.classes)[entries]
    return arrays


def _labels(walk: FolderWalk, classes: Sequence[str]) -> NDArray[np.int64]:
    """The class of every image of the walk: that of its first folder."""
    number = {name: label for label, name in enumerate(classes)}
    tops = (name.partition("/")[0] for name in walk.folder_names())
    of_folders = np.array([number.get(top, -1) for top in tops], np.int64)
    return of_folders[walk.folder_numbers()]


def _digest(walk: FolderWalk, entries: NDArray[np.integer]) -> NDArray[np.uint8]:
    """SHA-256 of names and sizes as in a fingerprint."""
    digest = hashlib.sha256()
    for start in range(0, len(entries), 4096):
        part = entries[start : start + 4096]
        sizes, names = walk.sizes[part].tolist(), walk.names.encoded(part)
        digest.update(fingerprint_lines(sizes, names))
    return np.frombuffer(digest.digest(), np.uint8)
