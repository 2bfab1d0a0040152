"""What training reads: a global index -> an image, from one source or from several by weight. Nothing is remembered."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.generators.counter_rng import key
from wildfern.ssl.data.base import DataError, ImageArray, Images, Source
from wildfern.ssl.data.permutation import permuted

BLOCK = 1024

Index = NDArray[np.int64]


class Mixture:
    """Sources and their weights, read by global index (rule: step s consumes the indices [s·B, (s+1)·B)).

    Every block of 1024 consecutive indices holds the same number of images of each component (`counts`: weight, rounded by
    largest remainder, at least 1), in an order drawn from (seed, block). Each component so sees its own 0, 1, 2 … in order; a
    finite one turns them into shuffled passes over its items, exactly once each per pass; an endless one takes them as items.
    """

    def __init__(self, components: list[tuple[Source, float]], seed: int) -> None:
        if not components:
            raise DataError("a mixture wants at least one source")
        self.sources = [source for source, _ in components]
        self.counts = block_counts([weight for _, weight in components])
        self._seeds = [key("component", seed, number) for number in range(len(components))]
        self._block_seed = key("mixture", seed)
        self._component_of_slot = np.repeat(np.arange(len(components)), self.counts)

    @property
    def class_names(self) -> list[str] | None:
        """Those of the only source; a mixture of several is unlabelled."""
        return self.sources[0].class_names if len(self.sources) == 1 else None

    @property
    def num_items(self) -> int | None:
        """Images in one pass over the only source; None for an endless one and for several."""
        return self.sources[0].num_items if len(self.sources) == 1 else None

    @property
    def fixed_size(self) -> bool:
        """Whether every batch is one array: a single source of images of one size."""
        return len(self.sources) == 1 and self.sources[0].fixed_size

    @property
    def skipped(self) -> dict[str, str]:
        """All that the sources found unusable so far: name -> reason."""
        return {name: reason for source in self.sources for name, reason in source.skipped.items()}

    def locate(self, indices: ArrayLike) -> tuple[Index, Index, Index]:
        """Where each global index comes from: (component, epoch, item), int64[N] each; epoch is 0 for endless sources."""
        indices = np.asarray(indices, np.int64)
        components, own = self._own_indices(indices)
        epochs, items = np.zeros_like(own), own.copy()
        for number, source in enumerate(self.sources):
            mine = components == number
            if source.num_items is not None and mine.any():
                epochs[mine], items[mine] = permuted(own[mine], source.num_items, self._seeds[number])
        return components, epochs, items

    def read(self, indices: ArrayLike) -> Images:
        """The images at these global indices int64[N], in any order; labels only from a single source.

        Where some source has pairs, the images of the others are their own paired images. Images of several sources come
        together on the host, also those drawn by a GPU; a single source's stay where they are.
        """
        components, _, items = self.locate(indices)
        if len(self.sources) == 1:
            return self.sources[0].read(items)
        images: list[ImageArray] = [None] * len(items)  # type: ignore[list-item]
        paired_images: dict[int, ImageArray] = {}
        for number, source in enumerate(self.sources):
            places = np.flatnonzero(components == number)
            if len(places):
                read = source.read(items[places]).on_host()
                for place, image in zip(places, read.pixels, strict=True):
                    images[place] = image
                if read.paired_images is not None:
                    paired_images.update(zip(places.tolist(), read.paired_images, strict=True))
        seconds = [paired_images.get(place, image) for place, image in enumerate(images)] if paired_images else None
        return Images.gather(images, paired_images=seconds)

    def _own_indices(self, indices: Index) -> tuple[Index, Index]:
        """For each global index: its component, and how many of that component's images come before it."""
        if len(self.sources) == 1:
            return np.zeros_like(indices), indices
        blocks, places = np.divmod(indices, BLOCK)
        distinct, row = np.unique(blocks, return_inverse=True)
        everywhere = distinct[:, None] * BLOCK + np.arange(BLOCK)
        layout = self._component_of_slot[permuted(everywhere, BLOCK, self._block_seed)[1]]
        components = layout[row, places]
        own = np.empty_like(indices)
        for number, count in enumerate(self.counts):
            mine = components == number
            before = np.cumsum(layout == number, axis=1)[row[mine], places[mine]] - 1
            own[mine] = blocks[mine] * count + before
        return components, own


def block_counts(weights: list[float]) -> Index:
    """How many of a block's 1024 places each weight gets: largest remainder, but 1 at least for a positive weight; 0 for 0."""
    weights_array = np.asarray(weights, np.float64)
    if not np.isfinite(weights_array).all() or (weights_array < 0).any() or not weights_array.any():
        raise DataError(f"weights must be 0 or more, and not all 0; got {weights}")
    if np.count_nonzero(weights_array) > BLOCK:
        raise DataError(f"a mixture holds at most {BLOCK} sources, got {len(weights)}")
    quotas = weights_array / weights_array.sum() * BLOCK
    counts = np.where(weights_array > 0, np.maximum(1, np.floor(quotas)), 0).astype(np.int64)
    while (missing := BLOCK - counts.sum()) != 0:
        behind = quotas - counts
        if missing > 0:
            counts[np.argmax(behind)] += 1
        else:
            counts[np.argmin(np.where(counts > 1, behind, np.inf))] -= 1
    return counts
