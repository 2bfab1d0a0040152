"""The images of a source in chunks, with their labels and masks."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.evaluation.preprocessing import Pixels

if TYPE_CHECKING:
    from wildfern.ssl.data import Source


class LabeledChunk(NamedTuple):
    """Images uint8[n, H, W, C] or a list of uint8[Hi, Wi, C], labels int64[n] (-1: none), masks of the images or None."""

    pixels: Pixels
    labels: NDArray[np.int64]
    masks: Pixels | None = None


def labeled_chunks(
    source: "Source", name: str, chunk: int = 1024, *, unlabeled: bool = False
) -> Iterator[LabeledChunk]:
    """The labeled images of a source, `chunk` items at a time; items with label -1 are left out unless `unlabeled`.

    Raises ValueError, naming `name`, for an endless source, for one without labels, and for several labels per image.
    """
    if source.num_items is None:
        raise ValueError(f"{name}: an endless stream cannot be evaluated on; name a data set with labels")
    if source.num_classes is None and not unlabeled:
        raise ValueError(
            f"{name}: these images have no labels, and this evaluation needs them; "
            "for a folder, put the images of each class into a separate sub-folder"
        )
    for start in range(0, source.num_items, chunk):
        images = source.read(np.arange(start, min(start + chunk, source.num_items), dtype=np.int64))
        labels, masks = images.labels, images.masks
        if labels is None and not unlabeled:
            raise ValueError(f"{name}: images {start} to {start + len(images.pixels) - 1} came without labels")
        if labels is None:
            labels = np.full(len(images.pixels), -1, np.int64)
        if labels.ndim != 1:
            raise ValueError(
                f"{name}: images with several labels each cannot be evaluated on; one label each is needed"
            )
        kept = np.arange(len(labels)) if unlabeled else np.flatnonzero(labels >= 0)
        if len(kept):
            yield LabeledChunk(
                _picked(images.pixels, kept), labels[kept], None if masks is None else _picked(masks, kept)
            )


def _picked(images: Pixels, index: NDArray[np.int64]) -> Pixels:
    return images[index] if isinstance(images, np.ndarray) else [images[i] for i in index]
