"""The images of a split with their masks, one by one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from wildfern.ssl.evaluation.evaluator import MaskedImage
from wildfern.ssl.evaluation.labeled_chunks import readable
from wildfern.ssl.tracking.progress import SILENT, Progress

if TYPE_CHECKING:
    from wildfern.ssl.data import Source


def masked_images(source: "Source", name: str, progress: Progress = SILENT, detail: str = "") -> Iterator[MaskedImage]:
    """All images of a finite source, in order; each is counted when the next one is asked for.

    An image that cannot be read is left out, as sources read another one in its place. Raises ValueError, naming `name`, for an
    endless source and for one without masks.
    """
    if source.num_items is None:
        raise ValueError(f"{name}: an endless stream cannot be evaluated on; name a set of images with masks")
    progress.count(0, source.num_items, "images", detail)
    for item in range(source.num_items):
        items = np.array([item], np.int64)
        images = source.read(items).on_host()
        if images.masks is None:
            raise ValueError(f"{name} has no masks, which segmentation is compared with: use masks:PATH")
        if readable(source, items).all():
            region = None if images.regions is None else np.asarray(images.regions[0]) > 0
            yield MaskedImage(np.asarray(images.pixels[0]), np.asarray(images.masks[0]) > 0, region, item)
        progress.count(item + 1, source.num_items, "images", detail)
