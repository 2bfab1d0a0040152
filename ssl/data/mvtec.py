"""`mvtec:PATH`: images of one product, good and defective, with masks of the defects, in the layout of MVTec AD."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Images, MaskArray, SourceFile, Split, UnreadableImage
from wildfern.ssl.data.file_names import is_hidden
from wildfern.ssl.data.folder_scan import good_headers, scan_folder
from wildfern.ssl.data.image_file import Decoding, File
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.paths import existing_folder

GOOD = "good"  # the folder of images without a defect
MASKS = "ground_truth"


@register("source", "mvtec")
class MVTecSource(ImageSource):
    """One category of MVTec AD (Bergmann et al., CVPR 2019), or of a data set in its layout:

        CATEGORY/train/good/000.png    CATEGORY/test/good/000.png
        CATEGORY/test/DEFECT/000.png   CATEGORY/ground_truth/DEFECT/000_mask.png

    path: a folder CATEGORY, or with `category` the folder that has it. max_side: shrink images to this longer side, and their
        masks to the nearest pixel.

    Classes are `good`, which has number 0, and the kinds of defects by name; they have the same numbers in both splits. Masks are
    1 in a defect and 0 elsewhere, also for good images. Raises DataError for another layout, and for a defective image whose
    mask is missing, cannot be read or has another size.
    """

    def __init__(
        self, path: str, split: Split = "train", *, category: str | None = None, max_side: int | None = None
    ) -> None:
        self._folder = _category(existing_folder(path), category)
        classes = _classes(self._folder)
        decoding = Decoding(max_side)
        loose = 0

        def wanted(name: str) -> bool:
            nonlocal loose
            loose += "/" not in name
            return name.partition("/")[0] in classes

        scan = scan_folder(str(existing_folder(self._folder / split)), wanted)
        entries = good_headers(scan, decoding)
        if not len(entries):
            found = next((f"; for example {name}: {reason}" for name, reason in scan.skipped.items()), "")
            raise DataError(f"no image under {scan.root} can be used{found}")
        self._names = [scan.names[entry] for entry in entries]
        self._sizes = [scan.sizes[entry] for entry in entries]
        self._root = scan.root
        labels = np.array([classes.index(name.partition("/")[0]) for name in self._names], np.int64)
        shown = [name.encode("utf-8", "backslashreplace").decode() for name in classes]
        super().__init__(len(labels), labels, shown, decoding)
        for name, reason in scan.skipped.items():
            self.skip(name, reason)
        if loose:
            self.note(f"{scan.root}: images outside of the folders of classes, which are left out: {loose:,}")
        self.split_words = f"{self._folder.name} {split}"
        self._masks = [
            None if label == 0 else self._mask_of(name) for name, label in zip(self._names, labels, strict=True)
        ]
        for item, mask in enumerate(self._masks):
            if mask is not None:
                self._check_mask(item, mask)

    def item_name(self, item: int) -> str:
        return os.path.join(self._root, self._names[item])

    def encoded(self, item: int) -> File:
        return self.item_name(item)

    def files(self) -> Iterator[SourceFile]:
        """The images of the split, then the masks."""
        for item, (name, size) in enumerate(zip(self._names, self._sizes, strict=True)):
            yield SourceFile(name, size, self.item_name(item))
        for mask in filter(None, self._masks):
            yield SourceFile(os.path.relpath(mask, self._folder), os.path.getsize(mask), mask)

    def read(self, items: ArrayLike) -> Images:
        images = super().read(items)
        unusable = self.skipped
        shown = (self._shown(int(item), unusable) for item in np.asarray(items, np.int64))
        masks = [self._mask(item, pixels.shape[:2]) for item, pixels in zip(shown, images.pixels, strict=True)]
        return replace(images, masks=np.stack(masks) if isinstance(images.pixels, np.ndarray) and masks else masks)

    def _shown(self, item: int, unusable: dict[str, str]) -> int:
        """The item that was read for this one: itself, or what replaced it."""
        candidates = ((item + tried * self._stride) % len(self._names) for tried in range(len(self._names)))
        return next(candidate for candidate in candidates if self.item_name(candidate) not in unusable)

    def _mask_of(self, name: str) -> str:
        kind, _, file = name.partition("/")
        return str(self._folder / MASKS / kind / f"{os.path.splitext(file)[0]}_mask.png")

    def _check_mask(self, item: int, mask: str) -> None:
        image = self.item_name(item)
        if not os.path.isfile(mask):
            raise DataError(f"{mask} is missing: the mask of {image}")
        try:
            found, needed = Decoding().size(mask), Decoding().size(image)
        except UnreadableImage as error:
            raise DataError(f"{mask}, the mask of {image}, cannot be read: {error.reason}") from error
        if found != needed:
            raise DataError(
                f"{mask} has {found[0]} x {found[1]} pixels, but its image {image} has {needed[0]} x {needed[1]}"
            )

    def _mask(self, item: int, shape: tuple[int, ...]) -> MaskArray:
        """The mask of an image as it is shown, uint8[H, W]."""
        mask = self._masks[item]
        if mask is None:
            return np.zeros(shape, np.uint8)
        try:
            marked = Decoding().decode(mask).any(axis=2).astype(np.uint8)
        except UnreadableImage as error:
            raise DataError(f"{mask}, the mask of {self.item_name(item)}, cannot be read: {error.reason}") from error
        if marked.shape == shape:
            return marked
        return np.asarray(Image.fromarray(marked).resize((shape[1], shape[0]), Image.Resampling.NEAREST))


def _category(given: Path, category: str | None) -> Path:
    """The folder of the category."""
    if _is_category(given):
        if category is None:
            return given
        raise DataError(f"{given} is one category, with folders train and test: leave category out")
    found = sorted(path.name for path in given.iterdir() if _is_category(path))
    if not found:
        raise DataError(f"{given} is not in the layout of MVTec AD: it needs folders train/{GOOD}, test and {MASKS}")
    listed = ", ".join(found)
    if category is None:
        raise DataError(f"{given} is a folder of categories: set category, for example {found[0]}; there are {listed}")
    if category not in found:
        raise DataError(f"{given} has no category {category!r}; there are {listed}")
    return given / category


def _is_category(path: Path) -> bool:
    return (path / "train").is_dir() and (path / "test").is_dir()


def _classes(folder: Path) -> list[str]:
    """The names of the classes of both splits, `good` first."""
    parts = [path for split in ("train", "test") for path in (folder / split).iterdir()]
    names = {path.name for path in parts if path.is_dir() and not is_hidden(path.name)}
    if GOOD not in names:
        raise DataError(f"{folder} has no folder train/{GOOD} or test/{GOOD}, of images without a defect")
    return [GOOD, *sorted(names - {GOOD})]
