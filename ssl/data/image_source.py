"""Finite sources that decode images one at a time, replace unreadable ones and keep small sets decoded in memory."""

import threading
from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.ssl.data.base import DataError, ImageArray, Images, Source, UnreadableImage
from wildfern.ssl.data.image_file import Decoding, File
from wildfern.ssl.data.resize import resize
from wildfern.ssl.data.value_range import RawImage

CACHE_BYTES = 2**30  # a set of images of one size that fits is decoded once and kept
_PROBES = 32
_RANGED = 64  # images that value_range: dataset looks at

Labels = NDArray[np.int64] | NDArray[np.uint8]  # [N], -1 unlabeled; or multi-hot [N, K]


class ImageSource(Source):
    """Base class of folders, shards and named sets: a subclass implements `item_name(item)` and `encoded(item)`.

    `decoding` says how the encoded images are read; what it remarks about their values is added to `notes`, once of each kind.

    An unreadable image is replaced, always by the same other one: the first readable of items i + s, i + 2s … (mod n), with s
    near 0.618 n and coprime to n. This visits every item, and consecutive unreadable images get replacements from all over the
    set. The label is that of the replacement. Raises DataError if no image is readable.

    Labels that are expensive to read, or may be unusable, come from `load_labels`, which is called when they are first needed:
    `labels` and `class_names` raise its DataError, and `read` then gives images without labels and a note.
    """

    def __init__(
        self,
        num_items: int,
        labels: Labels | None = None,
        class_names: list[str] | None = None,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__()
        self._decoding = decoding or Decoding()
        self.channels = self._decoding.channels
        self._remarked: set[str] = set()
        self.num_items = num_items
        self._lazy_labels = (
            labels is None and class_names is None and type(self).load_labels is not ImageSource.load_labels
        )
        self._annotation: tuple[Labels | None, list[str] | None] | DataError | None = (
            None if self._lazy_labels else (labels, class_names)
        )
        self._labels_lock = threading.Lock()
        self._stride = _coprime_stride(num_items)
        self._cache: ImageArray | None = None
        self._filled = np.zeros(0, bool)
        self._probed = False
        self._probe_lock = threading.Lock()

    def load_labels(self) -> tuple[Labels | None, list[str] | None]:
        """Labels int64[N] (-1 unlabeled) or multi-hot uint8[N, K], and class names; DataError if there are none of use."""
        return None, None

    @property
    def labels(self) -> Labels | None:
        return self._loaded_labels()[0]

    @labels.setter
    def labels(self, labels: Labels | None) -> None:
        self._annotation = labels, self.class_names

    @property
    def class_names(self) -> list[str] | None:
        return self._loaded_labels()[1]

    @class_names.setter
    def class_names(self, class_names: list[str] | None) -> None:
        self._annotation = self.labels, class_names

    def _loaded_labels(self) -> tuple[Labels | None, list[str] | None]:
        with self._labels_lock:
            if self._annotation is None:
                try:
                    self._annotation = self.load_labels()
                except DataError as error:
                    self._annotation = error
        if isinstance(self._annotation, DataError):
            raise DataError(str(self._annotation))
        return self._annotation

    def _labels_of(self, items: NDArray[np.int64]) -> Labels | None:
        if self._lazy_labels and not self.reads_labels:
            return None
        try:
            labels = self.labels
        except DataError as error:
            self.note(f"images are read without labels: {error}")
            return None
        return None if labels is None else labels[items]

    def __getstate__(self) -> dict[str, Any]:
        """Decoded images are left out: they are made again."""
        return super().__getstate__() | {"_cache": None, "_filled": np.zeros(0, bool), "_probed": False}

    @abstractmethod
    def item_name(self, item: int) -> str:
        """Where the image is stored, for messages."""

    def encoded(self, item: int) -> File:
        """The path or the bytes of the image's file; raises UnreadableImage."""
        raise NotImplementedError(f"{type(self).__name__} must implement encoded(item) or decode(item)")

    def decode(self, item: int) -> ImageArray:
        """One image, uint8[H, W, C]; raises UnreadableImage."""
        self._find_range()
        return self._decoding.decode(self.encoded(item), partial(self._remark, item))

    def raw(self, item: int) -> RawImage:
        """The values of one image as stored, before they are scaled to 8 bits; raises UnreadableImage."""
        return self._decoding.raw(self.encoded(item))

    @property
    def fixed_size(self) -> bool:
        """True for a set that is kept decoded: an image of another size is then resized to the common one."""
        if not self._probed:
            self._probe()
        return self._cache is not None

    def read(self, items: ArrayLike) -> Images:
        items = np.asarray(items, np.int64)
        outside = items[(items < 0) | (items >= self.num_items)]
        if len(outside):
            raise IndexError(
                f"item {outside[0]} is out of range: the source has {self.num_items} images (0 … {self.num_items - 1})"
            )
        if not self._probed:
            self._probe()
        if self._cache is not None and self._filled[items].all():
            return Images(self._cache[items], self._labels_of(items))
        images: list[ImageArray] = [None] * len(items)  # type: ignore[list-item]
        taken = items.copy()
        for position in np.argsort(items, kind="stable"):  # in storage order, for disks and row-group caches
            taken[position], images[position] = self._readable(int(items[position]))
        return Images.gather(images, self._labels_of(taken))

    def _readable(self, item: int) -> tuple[int, ImageArray]:
        for tried in range(self.num_items):
            candidate = (item + tried * self._stride) % self.num_items
            try:
                return candidate, self._image(candidate)
            except UnreadableImage as error:
                self.skip(self.item_name(candidate), error.reason)
        name, reason = next(iter(self.skipped.items()))
        raise DataError(f"none of the {self.num_items} images can be read; for example {name}: {reason}")

    def _image(self, item: int) -> ImageArray:
        if self._cache is None:
            return self.decode(item)
        if not self._filled[item]:
            image = self.decode(item)
            height, width = self._cache.shape[1:3]
            if image.shape[:2] != (height, width):
                image = resize(image, (width, height))
            self._cache[item] = image
            self._filled[item] = True
        return self._cache[item]

    def _probe(self) -> None:
        """Decide once whether to keep the set decoded: a sample of its images has one size, and all images would fit."""
        with self._probe_lock:
            if self._probed:
                return
            self._find_range()
            shapes = set()
            for item in np.unique(np.linspace(0, self.num_items - 1, _PROBES).astype(np.int64)):
                try:
                    image = self.decode(int(item))
                except UnreadableImage:
                    continue
                shapes.add(image.shape)
                if len(shapes) > 1 or image.nbytes * self.num_items > CACHE_BYTES:
                    break
            else:
                if shapes:
                    self._filled = np.zeros(self.num_items, bool)
                    self._cache = np.empty((self.num_items, *shapes.pop()), np.uint8)
            self._probed = True

    def _find_range(self) -> None:
        """Replace value_range: dataset by the percentiles of a fixed sample of the images, found once (twice by two threads)."""
        decoding = self._decoding
        if decoding.value_range != "dataset":
            return

        def sample() -> Iterator[RawImage]:
            for item in np.unique(np.linspace(0, self.num_items - 1, _RANGED).astype(np.int64)):
                try:
                    yield self.raw(int(item))
                except UnreadableImage:
                    continue

        found = decoding.with_range_of(sample())
        if isinstance(found.value_range, str):
            return
        low, high = found.value_range
        self.note(
            f"value_range: dataset is [{low:g}, {high:g}] here; write it instead of dataset to keep it for other images"
        )
        self._decoding = found

    def _remark(self, item: int, kind: str, message: str) -> None:
        if kind not in self._remarked:
            self._remarked.add(kind)
            self.note(f"{self.item_name(item)}: {message}")


def _coprime_stride(num_items: int) -> int:
    stride = max(1, round(0.618 * num_items))
    while gcd(stride, num_items) != 1:
        stride += 1
    return stride
