"""`folder:PATH`: all images under a folder, at any depth."""

import os
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wildfern.cache_folder import cache_folder
from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Split
from wildfern.ssl.data.classes_csv import NAME, read_classes_csv
from wildfern.ssl.data.file_names import is_hidden, is_image
from wildfern.ssl.data.folder_index import open_walk
from wildfern.ssl.data.folder_selection import Choice, FolderSelection, SelectedFiles, open_selection
from wildfern.ssl.data.folder_walk import FolderWalk, is_folder
from wildfern.ssl.data.image_file import EXTENSIONS, Bands, Decoding, File, Percentiles, ValueRange
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.paths import existing_folder
from wildfern.ssl.data.split_folders import SplitFolder, SplitFolders, split_folders
from wildfern.ssl.data.splits import empty_share, role_of, share_words

_TO_DO = ": put the images of each class into a folder of their own"
_DETECTION = {"images", "labels", "label", "annotations", "annotation", "masks"}


@register("source", "folder")
class FolderSource(ImageSource):
    """Images under `path`, ordered by name within each folder; items depend only on the content of the folder.

    split: PATH/train (or training) and PATH/test (testing, eval; else valid, validation, val, dev), in any case, if both exist.
        Otherwise `test_fraction` of the files, chosen by a hash of their relative path, is the test split and the rest is the
        train split; at 0 there is no test split.
    labels: "folders" uses the first level of folders as classes (-1 for images outside of them); "classes_csv" reads several
        classes of each image from _classes.csv of the split's folder; "none" gives no labels.
    train_folder, test_folder: the sub-folders of the splits if they have other names, with * for any ("*/train"). "." is `path`
        without the folder of the other split; train_folder "." with no test_folder takes all images, whatever folders are named.
    min_side: leave out images whose shorter side has fewer pixels.
    max_side, bands, value_range, percentiles: how the images are read; see `Decoding`.
    check_headers: open every file once at the start, in threads, and leave out those without a usable header. False starts
        sooner; faults are found, and replaced, on reading.
    index: keep what was found in a folder of 10,000 files or more in the user's cache folder, for later starts and for the other
        processes of the host. It is found again if a file or folder was added, removed or renamed; a file that was overwritten in
        place is noticed only if it is in a small sample. False: look at all files at every start.

    Hidden files and folders are ignored. Links are followed; each folder is entered once. Truncation is found on reading.
    """

    def __init__(
        self,
        path: str,
        split: Split = "train",
        *,
        labels: Literal["none", "folders", "classes_csv"] = "none",
        train_folder: str | None = None,
        test_folder: str | None = None,
        min_side: int = 1,
        max_side: int | None = None,
        bands: Bands | None = None,
        value_range: ValueRange | None = None,
        percentiles: Percentiles | None = None,
        test_fraction: float = 0.0,
        check_headers: bool = True,
        index: bool = True,
    ) -> None:
        if not 0.0 <= test_fraction < 1.0:
            raise DataError(f"test_fraction must be in [0, 1), got {test_fraction}")
        decoding = Decoding(max_side, min_side, bands, value_range, percentiles)
        given = existing_folder(path)
        folders = split_folders(given, train_folder, test_folder)
        part, by_hash = _part(given, folders, split, test_fraction)

        kept_in = cache_folder("indexes") if index else None
        walk, stamp = open_walk(str(part.root), kept_in)
        classes = _class_folders(given, folders) if labels == "folders" and len(walk.names) else None
        share = (split == "test", test_fraction) if by_hash else None
        choice = Choice(part, share, decoding if check_headers else None, None if classes is None else tuple(classes))
        selection = open_selection(walk, stamp, choice, kept_in)
        if not selection.chosen and selection.left_out:
            raise DataError(empty_share(walk.root, split, test_fraction, selection.left_out, "images under"))
        if not len(selection):
            wrong_folder = part.words and not selection.skipped
            hint = f"; set {split}_folder to the folder with the {split} images" if wrong_folder else ""
            raise DataError(_nothing_found(walk, selection.skipped) + hint)
        numbers = selection.labels
        shown = None if classes is None else list(map(_printable, classes))
        if numbers is not None and numbers.max() < 0:
            raise DataError(_without_classes(given, part, split))
        if labels == "classes_csv":
            shown, hot = _from_csv(folders, part, selection)
            super().__init__(len(selection), hot, shown, decoding)
        else:
            super().__init__(len(selection), numbers, shown, decoding)
        for name, reason in selection.skipped.items():
            self.skip(name, reason)
        shares = [share_words(split, test_fraction, "files, by a hash of their names")] if by_hash else []
        self.split_words = ", ".join([*([part.words] if part.words else []), *shares])
        for message in (*folders.notes, *_notes(given, folders, classes, numbers)):
            self.note(message)
        if labels == "classes_csv":
            walk.others.remove(NAME)
        if walk.others.total:
            files = "1 other file" if walk.others.total == 1 else f"{walk.others.total:,} other files"
            self.note(f"{part.root}: passed over {files}: {walk.others}")
        self._selection = selection

    def item_name(self, item: int) -> str:
        return self._selection.path(item)

    def files(self) -> SelectedFiles:
        return self._selection.files()

    def encoded(self, item: int) -> File:
        return self.item_name(item)


def _part(given: Path, folders: SplitFolders, split: Split, test_fraction: float) -> tuple[SplitFolder, bool]:
    """The folder of a split, and whether a hash of the names chooses among its files."""
    if folders.train is None and split == "train":
        raise DataError(f"{given} has no folder train: set train_folder (. for all images outside of test_folder)")
    if folders.test is not None:
        return (folders.test, False) if split == "test" or folders.train is None else (folders.train, False)
    assert folders.train is not None
    if split == "test" and not test_fraction:
        raise DataError(
            f"{given} has no test split: add folders train and test (or val), name one with test_folder, or set test_fraction, "
            "for example 0.1"
        )
    return folders.train, bool(test_fraction)


def _class_folders(given: Path, folders: SplitFolders) -> list[str]:
    """Names of the first level of folders, of both splits, so that a class has the same number in both."""
    parts = [part for part in (folders.train, folders.test) if part is not None]
    for part in parts:
        names = part.classes()
        if names and "images" in map(str.lower, names) and set(map(str.lower, names)) <= _DETECTION:
            key = "train_folder" if part is folders.train else "test_folder"
            inside = (part.root / names[0]).relative_to(given) if given in (part.root, *part.root.parents) else names[0]
            raise DataError(
                f"labels: folders needs one folder per class, but {part.root} has {' and '.join(names)}, as for detection, whose "
                "labels are not read: pretrain on these images without labels, and evaluate on other data; or set "
                f"{key}: {inside} if there are folders of classes in it"
            )
    found = {name for part in parts for name in part.classes()}
    if len(found) == 1 and (inside := _only_folders(parts[0].root / next(iter(found)))):
        (name,) = found
        keys = zip(("train_folder", "test_folder"), (folders.train, folders.test), strict=True)
        named = [f"{key}: {(part.root / name).relative_to(given)}" for key, part in keys if part is not None]
        write = f"give folder:{given / name}" if parts[0].root == given else f"set {' and '.join(named)}"
        raise DataError(
            f"labels: folders needs one folder per class, but {parts[0].root} has only {name}; if the classes are the folders in "
            f"it ({_listed(inside)}), {write}"
        )
    if not found:
        annotations = _annotations(parts[0].root)
        hint = f"; {annotations} has labels of another kind, which are not read" if annotations else ""
        if annotations and annotations.endswith(NAME):
            hint = f"; set labels: classes_csv to read {annotations}"
        raise DataError(
            f"labels: folders needs one folder per class under {parts[0].root}; it has no folders{hint or _TO_DO}"
        )
    return sorted(found)


def _only_folders(root: Path) -> list[str]:
    """The folders in `root`, if there are several and no images beside them."""
    if not root.is_dir():
        return []
    entries = [entry for entry in os.scandir(root) if not is_hidden(entry.name)]
    names = sorted(entry.name for entry in entries if is_folder(entry))
    return names if len(names) > 1 and not any(is_image(e.name) for e in entries if e.name not in names) else []


def _without_classes(given: Path, part: SplitFolder, split: Split) -> str:
    """Why no image of a split has a class, and another split folder whose images have."""
    others = [
        path
        for path in sorted(part.root.parent.iterdir())
        if part.root != given and role_of(path.name) and path.is_dir()
    ]
    usable = [path for path in others if role_of(path.name) != "train" and SplitFolder(path).classes()]
    hint = f", for example {split}_folder: {usable[0].relative_to(given)}" if usable and split == "test" else ""
    return (
        f"labels: folders: no image under {part.root} is in a folder of a class; set {split}_folder to a folder that has "
        f"class folders{hint}"
    )


def _annotations(root: Path) -> str | None:
    """A file or folder with labels of another kind (YOLO, COCO, Roboflow) in `root` or beside it."""
    above = (root.parent, root.parent.parent)
    beside = [path / name for path in above for name in ("labels", "annotations") if (path / name).is_dir()]
    inside = [
        path
        for pattern in ("_classes.csv", "*.coco.json", "*.xml", "*.json", "*.csv", "*.txt")
        for path in root.glob(pattern)
    ]
    return next((str(path) for path in (*inside, *beside)), None)


def _from_csv(
    folders: SplitFolders, part: SplitFolder, selection: FolderSelection
) -> tuple[list[str], NDArray[np.uint8]]:
    """Class names, and multi-hot labels by the name of each file; all 0 for files that are not in the table."""
    names, rows = read_classes_csv(part.root)
    for other in (folders.train, folders.test):
        if other is not None and other.root != part.root and (others := read_classes_csv(other.root)[0]) != names:
            raise DataError(
                f"the classes of {part.root} are {_listed(names)}, but those of {other.root} are {_listed(others)}"
            )
    none = np.zeros(len(names), np.uint8)
    found = (selection.name(item).rpartition("/")[2] for item in range(len(selection)))
    return names, np.stack([rows.get(name, none) for name in found])


def _notes(
    given: Path, folders: SplitFolders, classes: list[str] | None, labels: NDArray[np.int64] | None
) -> list[str]:
    if classes is None or labels is None:
        return []
    notes = [f"{given}: {_classes(len(classes))} from folder names: {_listed(classes)}"]
    if outside := int((labels < 0).sum()):
        notes.append(f"{given}: images outside of the class folders, which have no label: {outside:,}")
    if folders.train is not None and folders.test is not None:
        unseen = sorted(set(folders.test.classes()) - set(folders.train.classes()))
        if unseen:
            notes.append(
                f"{given}: {_classes(len(unseen))} of {folders.test.words} that {folders.train.words} does not have: "
                f"{_listed(unseen)}"
            )
    return notes


def _classes(count: int) -> str:
    return f"{count:,} class{'es' * (count != 1)}"


def _listed(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 6 else [*names[:5], "…"])


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _nothing_found(walk: FolderWalk, skipped: dict[str, str]) -> str:
    if skipped:
        name, reason = next(iter(skipped.items()))
        return f"none of the {len(skipped)} images under {walk.root} can be used; for example {name}: {reason}"
    looked = f"no images under {walk.root} (searched for {', '.join(EXTENSIONS[:6])} …; "
    number = walk.others.total
    others = f"{number} other files: {', '.join(walk.some_others)}{' …' if number > 3 else ''}"
    return looked + (f"found {others})" if number else "found no other files)")
