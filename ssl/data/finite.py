"""`finite`: the first images of an endless source, again and again in shuffled epochs."""

import threading
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Images, Split
from wildfern.ssl.data.groups import Groups
from wildfern.ssl.data.image_source import CACHE_BYTES, Labels
from wildfern.ssl.data.nested_source import Nested, NestedSource, open_nested

_ARRAYS = ("pixels", "labels", "paired_images", "masks", "regions", "parameters")


@register("source", "finite")
class FiniteSource(NestedSource):
    """The first `items` images of the source `of`, for instance one image for each class of a generator (OFDB: Nakamura et al.,
    ICCV 2023) or the images that `instance_identity` distinguishes.

    of: a name, or a mapping like an entry of `data`. seed: added to the seed of a generator. Rendered images are kept if all of
    them take up to 1 GiB. Raises DataError for more items than a finite source has.
    """

    def __init__(self, split: Split = "train", *, of: Nested, items: int, seed: int = 0) -> None:
        super().__init__(open_nested(of, split, seed))
        most = self.inner.num_items
        if items < 1 or (most is not None and items > most):
            raise DataError(f"items must be 1 or more{'' if most is None else f' and at most {most}'}, got {items}")
        self.num_items = items
        self.class_names, self.parameter_names = self.inner.class_names, self.inner.parameter_names
        self._lock = threading.Lock()
        self._kept: dict[str, NDArray] | None = None
        self._filled = np.zeros(0, bool)

    def __getstate__(self) -> dict[str, Any]:
        """Kept images are left out: they are rendered again."""
        return super().__getstate__() | {"_kept": None, "_filled": np.zeros(0, bool)}

    @property
    def fixed_size(self) -> bool:
        return self.inner.fixed_size

    @property
    def num_classes(self) -> int | None:
        return self.inner.num_classes

    @property
    def labels(self) -> Labels | None:
        """Labels of the images, of a finite source that knows them without reading images; else None."""
        labels: Labels | None = getattr(self.inner, "labels", None)
        return None if labels is None else labels[: self.num_items]

    @property
    def groups(self) -> tuple[Groups, ...]:  # type: ignore[override]
        return tuple(groups[np.arange(self.num_items or 0)] for groups in self.inner.groups)

    def read(self, items: ArrayLike) -> Images:
        items = np.asarray(items, np.int64)
        if len(items) and not 0 <= items.min() <= items.max() < (self.num_items or 0):
            raise IndexError(f"items must be in 0 … {self.num_items - 1}, got {items.min()} … {items.max()}")
        if (self.inner.reads_labels, self.inner.reads_parameters) != (self.reads_labels, self.reads_parameters):
            self.inner.reads_labels, self.inner.reads_parameters = self.reads_labels, self.reads_parameters
            self._kept = None
        if self.inner.num_items is not None or not self.inner.fixed_size:
            return self.inner.read(items)
        if self._kept is None and not self._allocate():
            return self.inner.read(items)
        kept, filled = self._kept or {}, self._filled
        missing = np.unique(items[~filled[items]])
        if len(missing):
            read = self.inner.read(missing).on_host()
            for name, array in kept.items():
                array[missing] = getattr(read, name)
            filled[missing] = True  # another thread may have rendered the same bytes
        return Images(**{name: array[items] for name, array in kept.items()})

    def _allocate(self) -> bool:
        """Make room for all images and what comes with them; returns whether they fit."""
        with self._lock:
            if self._kept is None:
                first = self.inner.read(np.zeros(1, np.int64)).on_host()
                arrays = {name: a for name in _ARRAYS if isinstance(a := getattr(first, name), np.ndarray)}
                if sum(array.nbytes for array in arrays.values()) * self.num_items > CACHE_BYTES:
                    return False
                self._filled = np.zeros(self.num_items, bool)
                self._kept = {name: np.empty((self.num_items, *a.shape[1:]), a.dtype) for name, a in arrays.items()}
        return True
