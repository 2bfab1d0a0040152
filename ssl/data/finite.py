"""`finite`: the first images of an endless source, again and again in shuffled epochs."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Images, Split
from wildfern.ssl.data.nested_source import Nested, NestedSource, check_nested, open_nested


@register("source", "finite")
class FiniteSource(NestedSource):
    """The first `items` images of the source `of`, for instance one image for each class of a generator (OFDB: Nakamura et al.,
    ICCV 2023) or the images that `instance_identity` distinguishes.

    of: a name, or a mapping like an entry of `data`. seed: added to the seed of a generator. Raises DataError for more items than
    a finite source has.
    """

    def __init__(self, split: Split = "train", *, of: Nested, items: int, seed: int = 0) -> None:
        super().__init__(open_nested(of, split, seed))
        most = self.inner.num_items
        if items < 1 or (most is not None and items > most):
            raise DataError(f"items must be 1 or more{'' if most is None else f' and at most {most}'}, got {items}")
        self.num_items = items
        self.class_names, self.parameter_names = self.inner.class_names, self.inner.parameter_names

    @staticmethod
    def check(of: Nested, **arguments: Any) -> None:
        check_nested(of)

    @property
    def fixed_size(self) -> bool:
        return self.inner.fixed_size

    @property
    def num_classes(self) -> int | None:
        return self.inner.num_classes

    def read(self, items: ArrayLike) -> Images:
        items = np.asarray(items, np.int64)
        if len(items) and not 0 <= items.min() <= items.max() < (self.num_items or 0):
            raise IndexError(f"items must be in 0 … {self.num_items - 1}, got {items.min()} … {items.max()}")
        self.inner.reads_labels, self.inner.reads_parameters = self.reads_labels, self.reads_parameters
        return replace(self.inner.read(items), source=None)
