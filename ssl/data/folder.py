"""`folder:PATH`: all images under a folder, at any depth."""

import os
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Split
from wildfern.ssl.data.folder_scan import FolderScan, good_headers, scan_folder
from wildfern.ssl.data.image_file import EXTENSIONS, Bands, Decoding, File, Percentiles, ValueRange
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.splits import name_in_test

SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "val", "validation")}


@register("source", "folder")
class FolderSource(ImageSource):
    """Images under `path`, ordered by name within each folder; items depend only on the content of the folder.

    split: PATH/train and PATH/test (or val, validation) if both exist. Otherwise `test_fraction` of the files, chosen by a hash
        of their relative path, is the test split and the rest is the train split; at 0 there is no test split.
    labels: "folders" uses the first level of folders as classes (-1 for images outside of them); "none" gives no labels.
    min_side: leave out images whose shorter side has fewer pixels.
    max_side, bands, value_range, percentiles: how the images are read; see `Decoding`.
    check_headers: open every file once at the start, in threads, and leave out those without a usable header: about ten
        thousand files per second from a warm local disk. False starts at once; faults are found, and replaced, on reading.

    Hidden files and folders are ignored. Links are followed; each folder is entered once. Truncation is found on reading.
    """

    def __init__(
        self,
        path: str,
        split: Split = "train",
        *,
        labels: Literal["none", "folders"] = "none",
        min_side: int = 1,
        max_side: int | None = None,
        bands: Bands | None = None,
        value_range: ValueRange | None = None,
        percentiles: Percentiles | None = None,
        test_fraction: float = 0.0,
        check_headers: bool = True,
    ) -> None:
        if not 0.0 <= test_fraction < 1.0:
            raise DataError(f"test_fraction must be in [0, 1), got {test_fraction}")
        decoding = Decoding(max_side, min_side, bands, value_range, percentiles)
        given = existing_folder(path)
        root = _split_folder(given, split) or given
        if root == given and split == "test" and not test_fraction:
            raise DataError(
                f"{given} has no test split: add folders train and test (or val), or set test_fraction, for example 0.1"
            )

        def wanted(name: str) -> bool:
            return root != given or not test_fraction or name_in_test(name, test_fraction) == (split == "test")

        scan = scan_folder(str(root), wanted)
        self._entries = good_headers(scan, decoding) if check_headers else np.arange(len(scan.names))
        if not len(self._entries):
            raise DataError(_nothing_found(scan))
        classes = _class_folders(given) if labels == "folders" else None
        super().__init__(len(self._entries), _labels(scan, self._entries, classes), classes, decoding)
        for name, reason in scan.skipped.items():
            self.skip(name, reason)
        self._scan = scan

    def item_name(self, item: int) -> str:
        return self._scan.path(self._scan.names[self._entries[item]])

    def encoded(self, item: int) -> File:
        return self.item_name(item)


def existing_folder(path: str) -> Path:
    """The folder at `path` (~ expanded), or a DataError that names the deepest folder on the path that exists."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"{folder} is a file; a folder is needed")
    parent = next(p for p in folder.absolute().parents if p.is_dir())
    inside = sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))[:5]
    raise DataError(f"folder {folder} does not exist; {parent} exists and has {', '.join(inside) or 'no folders'}")


def _split_folder(given: Path, split: str) -> Path | None:
    """PATH/train or PATH/test if both exist."""
    folders = {s: next((given / n for n in names if (given / n).is_dir()), None) for s, names in SPLIT_FOLDERS.items()}
    return folders[split] if all(folders.values()) else None


def _class_folders(given: Path) -> list[str]:
    """Names of the first level of folders, of both splits, so that a class has the same number in both."""
    roots = {_split_folder(given, split) or given for split in SPLIT_FOLDERS}
    names = {e.name for root in roots for e in os.scandir(root) if e.is_dir() and not e.name.startswith(".")}
    if not names:
        raise DataError(f"labels: folders needs one folder per class under {given}; it has no folders")
    return sorted(names)


def _labels(scan: FolderScan, entries: NDArray[np.int64], classes: list[str] | None) -> NDArray[np.int64] | None:
    if classes is None:
        return None
    number = {name: label for label, name in enumerate(classes)}
    parts = (scan.names[entry].partition("/") for entry in entries)
    return np.fromiter((number[top] if slash else -1 for top, slash, _ in parts), np.int64, len(entries))


def _nothing_found(scan: FolderScan) -> str:
    looked = f"no images under {scan.root} (searched for {', '.join(EXTENSIONS[:6])} …; "
    others = f"{scan.num_others} other files: {', '.join(scan.some_others)}{' …' if scan.num_others > 3 else ''}"
    message = looked + (f"found {others})" if scan.num_others else "found no other files)")
    if scan.skipped:
        name, reason = next(iter(scan.skipped.items()))
        message += f"; {len(scan.skipped)} are unusable, for example {name}: {reason}"
    return message
