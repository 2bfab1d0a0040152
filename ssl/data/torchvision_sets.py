"""Datasets of torchvision by name: read from `root`, downloaded only on request."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wildfern.ssl.data.base import DataError, ImageArray, Split, UnreadableImage
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.paths import expanded
from wildfern.ssl.data.pillow_image import to_pixels
from wildfern.ssl.data.splits import share_words, stratified_split
from wildfern.ssl.tracking.current_progress import current_progress

_HOLDOUT = 0.3  # of every class, for datasets without a test split


@dataclass(frozen=True)
class _Parts:
    """A torchvision class and, for each split, the constructor arguments of the parts that are concatenated.

    `megabytes` of its download, about, for all splits.
    """

    cls: str
    megabytes: int
    train: tuple[dict[str, Any], ...]
    test: tuple[dict[str, Any], ...] | None  # None: a fixed share of the train part

    @property
    def size(self) -> str:
        """Of the download: `about 170 MB`."""
        return f"about {self.megabytes} MB" if self.megabytes < 1000 else f"about {self.megabytes / 1000:.1f} GB"


def _by_split(cls: str, megabytes: int, train: tuple[str, ...] = ("train",), test: str = "test") -> _Parts:
    return _Parts(cls, megabytes, tuple({"split": part} for part in train), ({"split": test},))


def _by_flag(cls: str, megabytes: int) -> _Parts:
    return _Parts(cls, megabytes, ({"train": True},), ({"train": False},))


TORCHVISION_SETS = {
    "caltech101": _Parts("Caltech101", 137, ({},), None),
    "cifar10": _by_flag("CIFAR10", 170),
    "cifar100": _by_flag("CIFAR100", 169),
    "clevr": _by_split(
        "CLEVRClassification", 19_000, test="val"
    ),  # the number of objects; those of test are not published
    "country211": _by_split("Country211", 11_000, ("train", "valid")),
    "dtd": _by_split("DTD", 625, ("train", "val")),  # partition 1 of 10
    "eurosat": _Parts("EuroSAT", 95, ({},), None),
    "fashion_mnist": _by_flag("FashionMNIST", 31),
    "fgvc_aircraft": _by_split("FGVCAircraft", 2_750, ("trainval",)),
    "flowers102": _by_split("Flowers102", 345, ("train", "val")),
    "food101": _by_split("Food101", 5_000),
    "gtsrb": _by_split("GTSRB", 277),
    "imagenette": _by_split("Imagenette", 1_560, test="val"),
    "kmnist": _by_flag("KMNIST", 21),
    "mnist": _by_flag("MNIST", 12),
    "oxford_pets": _by_split("OxfordIIITPet", 811, ("trainval",)),
    "rendered_sst2": _by_split("RenderedSST2", 131, ("train", "val")),
    "stl10": _by_split("STL10", 2_640),
    "stl10_unlabeled": _by_split("STL10", 2_640, ("unlabeled",)),
    "sun397": _Parts("SUN397", 39_000, ({},), None),
    "svhn": _by_split("SVHN", 246),
    "usps": _by_flag("USPS", 8),
}


class TorchvisionSource(ImageSource):
    """One of TORCHVISION_SETS, with the splits of published results; the train split includes the val part.

    root: folder of the files. download: fetch missing files from the dataset's own site.
    caltech101, eurosat and sun397 have no test split: a fixed 30 % of each class is held out.
    """

    def __init__(
        self, name: str, split: Split = "train", *, root: str = "~/.cache/wildfern", download: bool = False
    ) -> None:
        if name not in TORCHVISION_SETS:
            raise DataError(f"unknown dataset {name!r}; available: {', '.join(TORCHVISION_SETS)}")
        parts = TORCHVISION_SETS[name]
        arguments = parts.test if split == "test" and parts.test is not None else parts.train
        self._name = f"{name} {split}"
        self._parts = [_open(name, parts, expanded(root), download, part) for part in arguments]
        self._ends = np.cumsum([len(part) for part in self._parts])
        labels = np.concatenate([_labels(part) for part in self._parts])
        self._items = np.arange(len(labels))
        if parts.test is None:
            self._items = stratified_split(labels, split, name, _HOLDOUT)
            self.split_words = share_words(split, _HOLDOUT, "images of each class")
        labels = labels[self._items]
        names = _class_names(self._parts[0], int(labels.max()) + 1)
        labeled = bool((labels >= 0).any())
        super().__init__(len(labels), labels if labeled else None, names if labeled else None)

    def item_name(self, item: int) -> str:
        return f"{self._name} {self._items[item]}"

    def decode(self, item: int) -> ImageArray:
        number = int(self._items[item])
        part = int(np.searchsorted(self._ends, number, "right"))
        try:
            image = self._parts[part][number - int(self._ends[part]) + len(self._parts[part])][0]
        except (OSError, SyntaxError) as error:
            raise UnreadableImage(f"truncated or damaged: {error}") from error
        return to_pixels(image)


def _open(name: str, parts: _Parts, root: Path, download: bool, arguments: dict[str, Any]) -> Any:
    import torchvision.datasets

    make, missing = getattr(torchvision.datasets, parts.cls), None
    if root.is_dir():  # some classes would create the folder
        try:
            return _in_order(make(root=str(root), download=False, **arguments))
        except (RuntimeError, OSError) as error:
            missing = error
    if not download:
        message = f"{name} is not in {root}; set download=true to fetch it ({parts.size}), or root to its folder"
        raise DataError(message) from missing
    current_progress().detail(f"downloading {name}, {parts.size}")
    try:
        return _in_order(make(root=str(root), download=True, **arguments))
    except (RuntimeError, OSError) as error:
        raise DataError(f"{name} ({parts.size}) could not be downloaded to {root}: {error}") from error


def _in_order(part: Any) -> Any:
    """The same part; the images of SUN397, which torchvision takes in the order of the disk, are sorted by name."""
    if type(part).__name__ == "SUN397":
        order = sorted(range(len(part)), key=part._image_files.__getitem__)
        part._image_files = [part._image_files[number] for number in order]
        part._labels = [part._labels[number] for number in order]
    return part


def _labels(part: Any) -> np.ndarray:
    """torchvision has no common name for the labels."""
    for attribute in ("targets", "labels", "_labels", "y"):
        if (labels := getattr(part, attribute, None)) is not None:
            return np.asarray(labels, np.int64)
    return np.asarray([label for _, label in part._samples], np.int64)


def _class_names(part: Any, count: int) -> list[str]:
    names = getattr(part, "classes", None) or getattr(part, "categories", None) or range(count)
    return [name[0] if isinstance(name, tuple) else str(name) for name in names]
