"""Some of the items of a source, as a source of its own."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.ssl.data.base import DataError, Images, Source, SourceFile
from wildfern.ssl.data.groups import Groups


class Subset(Source):
    """The items `items` int64[n] of a finite source, numbered 0 … n - 1. Classes keep their names and numbers.

    `words` describes the choice, after the split. Files are those of the whole source, which the choice depends on, and an
    unreadable image is replaced as the source does it: by an image of the whole source, with that one's label.
    """

    def __init__(self, source: Source, items: NDArray[np.int64], words: str = "") -> None:
        super().__init__()
        if not len(items):
            raise DataError("a subset needs at least one item")
        self.source, self.items = source, items
        self.num_items = len(items)
        self.channels = source.channels
        self.split_words = ", ".join(part for part in (source.split_words, words) if part)

    @property
    def class_names(self) -> list[str] | None:  # type: ignore[override]
        return self.source.class_names

    @property
    def labels(self) -> NDArray[np.int64] | NDArray[np.uint8] | None:
        """Labels of the chosen items; None if the source has none."""
        labels: NDArray[np.int64] | NDArray[np.uint8] | None = getattr(self.source, "labels", None)
        return None if labels is None else labels[self.items]

    @property
    def groups(self) -> tuple[Groups, ...]:  # type: ignore[override]
        return tuple(groups[self.items] for groups in self.source.groups)

    @property
    def parameter_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.source.parameter_names

    @property
    def reads_parameters(self) -> bool:  # type: ignore[override]
        return self.source.reads_parameters

    @reads_parameters.setter
    def reads_parameters(self, value: bool) -> None:
        self.source.reads_parameters = value

    @property
    def reads_labels(self) -> bool:  # type: ignore[override]
        return self.source.reads_labels

    @reads_labels.setter
    def reads_labels(self, value: bool) -> None:
        self.source.reads_labels = value

    @property
    def blocks(self) -> NDArray[np.int64] | None:
        """None also if the items are not in the order of the source."""
        blocks = self.source.blocks
        in_order = blocks is not None and bool((np.diff(self.items) > 0).all())
        return np.unique(np.searchsorted(self.items, blocks)) if in_order else None

    @property
    def reads_by_blocks(self) -> int:  # type: ignore[override]
        return self.source.reads_by_blocks

    @reads_by_blocks.setter
    def reads_by_blocks(self, value: int) -> None:
        # `value` images of this source are, on average, among more images of the whole one.
        self.source.reads_by_blocks = -(-value * (self.source.num_items or 0) // self.num_items)

    def prepare(self) -> None:
        self.source.prepare()

    def expect(self, items: ArrayLike) -> None:
        self.source.expect(self.items[np.asarray(items, np.int64)])

    @property
    def fixed_size(self) -> bool:
        return self.source.fixed_size

    @property
    def skipped(self) -> dict[str, str]:
        return self.source.skipped

    def skip(self, name: str, reason: str) -> None:
        self.source.skip(name, reason)

    @property
    def notes(self) -> list[str]:
        return [*self.source.notes, *super().notes]

    def files(self) -> Iterable[SourceFile] | None:
        return self.source.files()

    def read(self, items: ArrayLike) -> Images:
        items = np.asarray(items, np.int64)
        outside = items[(items < 0) | (items >= len(self.items))]
        if len(outside):
            raise IndexError(f"item {outside[0]} is out of range: the subset has {len(self.items)} images")
        return self.source.read(self.items[items])
