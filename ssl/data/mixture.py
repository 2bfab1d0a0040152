"""Maps global indices to images of one source, or of several by weight. There is no sampler state."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.generators.counter_rng import key
from wildfern.ssl.data.base import DataError, ImageArray, Images, MaskArray, Source
from wildfern.ssl.data.block_order import BlockOrder
from wildfern.ssl.data.guided_batches import GuidedBatches
from wildfern.ssl.data.permutation import permuted

BLOCK = 1024

Index = NDArray[np.int64]


class Mixture:
    """Sources and their weights, read by global index (rule: step s consumes the indices [s·B, (s+1)·B)).

    Every block of 1024 consecutive indices holds the same number of images of each component (`counts`: weights rounded by
    largest remainder, at least 1), in an order drawn from (seed, block). Each component counts its own images 0, 1, 2 …: for an
    endless source these are the items; for a finite one they index shuffled epochs, in each of which every item comes once.

    `buffers` has a number for each component whose epochs are ordered by blocks (`BlockOrder`): the images that are shuffled
    together; None for a random order, as without `buffers`. Raises DataError for a source without blocks.

    With `guide`, which is for a single source, the items are those of its batches instead, and an epoch is that of a cluster.
    """

    def __init__(
        self,
        components: list[tuple[Source, float]],
        seed: int,
        guide: GuidedBatches | None = None,
        buffers: Sequence[int | None] | None = None,
    ) -> None:
        if not components:
            raise DataError("a mixture needs at least one source")
        if guide is not None and len(components) > 1:
            raise DataError("guide fills whole batches from one source, but data has several")
        self.guide = guide
        self.sources = [source for source, _ in components]
        self.counts = block_counts([weight for _, weight in components])
        numbers = [source.channels for source in self.sources]
        if len(set(numbers)) > 1:
            raise DataError(
                f"the sources of a mixture must have one number of channels, but theirs are {', '.join(map(str, numbers))} (in "
                "the order of the sources); set bands, or leave it out, for all of them"
            )
        self._seeds = [key("component", seed, number) for number in range(len(components))]
        self._block_seed = key("mixture", seed)
        self._component_of_slot = np.repeat(np.arange(len(components)), self.counts)
        self._orders = [
            None if buffer is None else _order_by_blocks(source, buffer, own_seed)
            for source, buffer, own_seed in zip(
                self.sources, buffers or [None] * len(components), self._seeds, strict=True
            )
        ]
        if guide is not None and any(self._orders):
            raise DataError("guide chooses the images of each batch, so data.order cannot be blocks: leave it out")

    @property
    def channels(self) -> int:
        """C of all images uint8[H, W, C]."""
        return self.sources[0].channels

    @property
    def class_names(self) -> list[str] | None:
        """Those of the only source; None for a mixture of several, whose classes are not related."""
        return self.sources[0].class_names if len(self.sources) == 1 else None

    @property
    def num_items(self) -> int | None:
        """Images in one pass over the only source; None for an endless one and for several."""
        return self.sources[0].num_items if len(self.sources) == 1 else None

    @property
    def fixed_size(self) -> bool:
        """Whether every batch is one array: true for a single source whose images have one size."""
        return len(self.sources) == 1 and self.sources[0].fixed_size

    @property
    def skipped(self) -> dict[str, str]:
        """The unusable items that the sources found so far: name -> reason."""
        return {name: reason for source in self.sources for name, reason in source.skipped.items()}

    def skip_labels(self) -> None:
        """Say that nothing needs labels: sources that would read them from files leave them out."""
        for source in self.sources:
            source.reads_labels = False

    @property
    def num_images(self) -> int:
        """Images of all finite sources, which `Images.items` numbers in the order of the sources."""
        return sum(source.num_items or 0 for source in self.sources)

    @property
    def with_masks(self) -> list[bool]:
        """Whether each source has masks, found by reading one item of each."""
        return self._annotations.with_masks

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Those of all sources that have parameters; raises DataError if they are not the same."""
        found = {source.parameter_names for source in self.sources if source.parameter_names}
        if len(found) > 1:
            several = " and ".join("(" + ", ".join(names) + ")" for names in sorted(found))
            raise DataError(f"the sources were rendered with different parameters: {several}")
        return found.pop() if found else ()

    def read_parameters(self) -> None:
        """Say that the method needs `Images.parameters`."""
        for source in self.sources:
            source.reads_parameters = True

    @property
    def notes(self) -> list[str]:
        """The messages of the sources for the user."""
        return [note for source in self.sources for note in source.notes]

    def locate(self, indices: ArrayLike) -> tuple[Index, Index, Index]:
        """Where each global index comes from: (component, epoch, item), int64[N] each; epoch is 0 for endless sources."""
        indices = np.asarray(indices, np.int64)
        if self.guide is not None:
            return np.zeros_like(indices), *self.guide.locate(indices)
        components, own = self._own_indices(indices)
        epochs, items = np.zeros_like(own), own.copy()
        for number, source in enumerate(self.sources):
            mine = components == number
            if source.num_items is not None and mine.any():
                order = self._orders[number]
                epochs[mine], items[mine] = (
                    permuted(own[mine], source.num_items, self._seeds[number])
                    if order is None
                    else order.locate(own[mine])
                )
        return components, epochs, items

    def read(self, indices: ArrayLike) -> Images:
        """The images at these global indices int64[N], in any order, with `source` set to the number of their component.

        Images of a single source stay where they are. Images of several sources are joined on the host, also those drawn by a
        GPU, and what only some sources have is completed, the same for every batch:

        - labels: int64[N] with the numbers of each image's own source, -1 for sources without labels. Classes of different
          sources are not related, whatever their numbers: use `source` to distinguish them. If every labeled source is multi-hot
          with the same K: uint8[N, K], all 0 for sources without labels. If int and multi-hot labels, or different K, are mixed:
          None, as no one array can hold them.
        - masks: all 0 for images of sources without masks, which `masked` tells apart.
        - paired_images: an image of a source without pairs is its own paired image.
        - parameters: NaN for images of sources without parameters.
        """
        components, _, items = self.locate(indices)
        self._announce(indices)
        numbers = self._numbers(components, items)
        if len(self.sources) == 1:
            read = self.sources[0].read(items)
            masked = None if read.masks is None else np.ones(len(items), np.bool_)
            return replace(read, source=components, items=numbers, masked=masked)
        images: list[ImageArray] = [None] * len(items)  # type: ignore[list-item]
        masks: dict[int, MaskArray] = {}
        paired_images: dict[int, ImageArray] = {}
        labels = self._no_labels(len(items))
        parameters = self._no_parameters(len(items))
        for number, source in enumerate(self.sources):
            places = np.flatnonzero(components == number)
            if len(places):
                read = source.read(items[places]).on_host()
                for place, image in zip(places, read.pixels, strict=True):
                    images[place] = image
                if read.paired_images is not None:
                    paired_images.update(zip(places.tolist(), read.paired_images, strict=True))
                if read.masks is not None:
                    masks.update(zip(places.tolist(), read.masks, strict=True))
                if labels is not None and read.labels is not None:
                    labels[places] = read.labels
                if parameters is not None and read.parameters is not None:
                    parameters[places] = read.parameters
        seconds = [paired_images.get(place, image) for place, image in enumerate(images)] if paired_images else None
        completed, masked = None, None
        if any(self.with_masks):
            masked = np.isin(np.arange(len(items)), list(masks))
            completed = [m if (m := masks.get(i)) is not None else _no_mask(image) for i, image in enumerate(images)]
        gathered = Images.gather(images, labels, seconds, completed, components)
        return replace(gathered, items=numbers, parameters=parameters, masked=masked)

    def _announce(self, indices: ArrayLike) -> None:
        """Tell sources that are read by blocks which blocks they need next."""
        if not any(self._orders):
            return
        components, own = self._own_indices(np.asarray(indices, np.int64))
        for number, order in enumerate(self._orders):
            if order is not None and (mine := components == number).any():
                self.sources[number].expect(order.upcoming(own[mine]))

    @cached_property
    def _annotations(self) -> "_Annotations":
        """What the images of a mixture of several sources come with: found by reading one item of each source."""
        used = [bool(count) for count in self.counts]
        read = [s.read(np.zeros(1, np.int64)) if u else None for s, u in zip(self.sources, used, strict=True)]
        first = [images for images in read if images is not None]
        widths = {images.labels.shape[1:] for images in first if images.labels is not None}
        return _Annotations(
            label_shape=widths.pop() if len(widths) == 1 else None,
            with_masks=[images is not None and images.masks is not None for images in read],
        )

    def _no_labels(self, count: int) -> NDArray[np.int64] | NDArray[np.uint8] | None:
        shape = self._annotations.label_shape
        if shape is None:
            return None
        return np.zeros((count, *shape), np.uint8) if shape else np.full(count, -1, np.int64)

    def _no_parameters(self, count: int) -> NDArray[np.float32] | None:
        names = self.parameter_names if any(source.reads_parameters for source in self.sources) else ()
        return np.full((count, len(names)), np.nan, np.float32) if names else None

    def _numbers(self, components: Index, items: Index) -> Index:
        """`Images.items` of these items of these sources."""
        sizes = [source.num_items or 0 for source in self.sources]
        first = np.cumsum([0, *sizes[:-1]])
        finite = np.array([source.num_items is not None for source in self.sources])
        return np.where(finite[components], first[components] + items, -1)

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


@dataclass(frozen=True)
class _Annotations:
    """`label_shape`: of one image's label, () for int labels and (K,) for multi-hot ones, None if there is no common one."""

    label_shape: tuple[int, ...] | None
    with_masks: list[bool]  # by source


def _no_mask(image: ImageArray) -> MaskArray:
    return np.zeros(image.shape[:2], np.uint8)


def _order_by_blocks(source: Source, buffer: int, seed: int) -> BlockOrder:
    """The order of a source's items by blocks, which it is told of."""
    blocks = source.blocks
    if blocks is None:
        raise DataError(
            "order: blocks is for images that are stored many in a file, in shards (webdataset:…) or row groups (parquet:…), "
            "but those of this source are not: leave out order, or set it to random"
        )
    source.reads_by_blocks = buffer
    return BlockOrder(blocks, buffer, seed)


def block_counts(weights: list[float]) -> Index:
    """Images of each component in a block of 1024: by largest remainder, at least 1 for a positive weight, 0 for weight 0."""
    weights_array = np.asarray(weights, np.float64)
    if not np.isfinite(weights_array).all() or (weights_array < 0).any() or not weights_array.any():
        raise DataError(f"weights must be 0 or more, and not all 0; got {weights}")
    if np.count_nonzero(weights_array) > BLOCK:
        raise DataError(f"a mixture can have at most {BLOCK} sources, got {len(weights)}")
    quotas = weights_array / weights_array.sum() * BLOCK
    counts = np.where(weights_array > 0, np.maximum(1, np.floor(quotas)), 0).astype(np.int64)
    while (missing := BLOCK - counts.sum()) != 0:
        behind = quotas - counts
        if missing > 0:
            counts[np.argmax(behind)] += 1
        else:
            counts[np.argmin(np.where(counts > 1, behind, np.inf))] -= 1
    return counts
