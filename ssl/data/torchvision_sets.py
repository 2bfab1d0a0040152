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

_HOLDOUT = 0.3  # of every class, for datasets without a test split


@dataclass(frozen=True)
class _Parts:
    """A torchvision class and, for each split, the constructor arguments of the parts that are concatenated."""

    cls: str
    train: tuple[dict[str, Any], ...]
    test: tuple[dict[str, Any], ...] | None  # None: a fixed share of the train part


def _by_split(cls: str, train: tuple[str, ...] = ("train",), test: str = "test") -> _Parts:
    return _Parts(cls, tuple({"split": part} for part in train), ({"split": test},))


def _by_flag(cls: str) -> _Parts:
    return _Parts(cls, ({"train": True},), ({"train": False},))


TORCHVISION_SETS = {
    "caltech101": _Parts("Caltech101", ({},), None),
    "cifar10": _by_flag("CIFAR10"),
    "cifar100": _by_flag("CIFAR100"),
    "dtd": _by_split("DTD", ("train", "val")),  # partition 1 of 10
    "eurosat": _Parts("EuroSAT", ({},), None),
    "fashion_mnist": _by_flag("FashionMNIST"),
    "fgvc_aircraft": _by_split("FGVCAircraft", ("trainval",)),
    "flowers102": _by_split("Flowers102", ("train", "val")),
    "food101": _by_split("Food101"),
    "gtsrb": _by_split("GTSRB"),
    "imagenette": _by_split("Imagenette", test="val"),
    "kmnist": _by_flag("KMNIST"),
    "mnist": _by_flag("MNIST"),
    "oxford_pets": _by_split("OxfordIIITPet", ("trainval",)),
    "stl10": _by_split("STL10"),
    "stl10_unlabeled": _by_split("STL10", ("unlabeled",)),
    "svhn": _by_split("SVHN"),
}


class TorchvisionSource(ImageSource):
    """One of TORCHVISION_SETS, with the splits of published results; the train split includes the val part.

    root: folder of the files. download: fetch missing files from the dataset's own site.
    caltech101 and eurosat have no test split: a fixed 30 % of each class is held out.
    """

    def __init__(
        self, name: str, split: Split = "train", *, root: str = "~/.cache/wildfern", download: bool = False
    ) -> None:
        if name not in TORCHVISION_SETS:
            raise DataError(f"unknown dataset {name!r}; available: {', '.join(TORCHVISION_SETS)}")
        parts = TORCHVISION_SETS[name]
        arguments = parts.test if split == "test" and parts.test is not None else parts.train
        self._name = f"{name} {split}"
        self._parts = [_open(name, parts.cls, expanded(root), download, part) for part in arguments]
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


def _open(name: str, cls: str, root: Path, download: bool, arguments: dict[str, Any]) -> Any:
    import torchvision.datasets

    if not download and not root.is_dir():  # some classes would create the folder
        raise DataError(f"{name} is not in {root}; set download=true to fetch it, or root to its folder")
    try:
        return getattr(torchvision.datasets, cls)(root=str(root), download=download, **arguments)
    except (RuntimeError, OSError) as error:
        if download:
            raise DataError(f"{name} could not be downloaded to {root}: {error}") from error
        message = f"{name} is not in {root}; set download=true to fetch it, or root to its folder"
        raise DataError(message) from error


def _labels(part: Any) -> np.ndarray:
    """torchvision has no common name for the labels."""
    for attribute in ("targets", "labels", "_labels", "y"):
        if (labels := getattr(part, attribute, None)) is not None:
            return np.asarray(labels, np.int64)
    return np.asarray([label for _, label in part._samples], np.int64)


def _class_names(part: Any, count: int) -> list[str]:
    names = getattr(part, "classes", None) or getattr(part, "categories", None) or range(count)
    return [name[0] if isinstance(name, tuple) else str(name) for name in names]
