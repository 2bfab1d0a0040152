"""The images of a split with their masks, one by one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from wildfern.ssl.data.base import NoImages
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.evaluation.evaluator import MaskedImage
from wildfern.ssl.evaluation.labeled_chunks import readable
from wildfern.ssl.tracking.progress import SILENT, Progress

if TYPE_CHECKING:
    from wildfern.ssl.data import Source


def masked_images(source: "Source", name: str, progress: Progress = SILENT, detail: str = "") -> Iterator[MaskedImage]:
    """All images of a finite source, in order; each is counted when the next one is asked for.

    Left out are images that cannot be read, in whose place sources read another one, and those with an empty field of view.
    Raises ValueError, naming `name`, for an endless source, one without masks, and a split that has no images.
    """
    if source.num_items is None:
        raise ValueError(f"{name}: an endless stream cannot be evaluated on; name a set of images with masks")
    if isinstance(source, NoImages):
        raise ValueError(f"{name}: {source.why}")
    progress.count(0, source.num_items, "images", detail)
    for item in range(source.num_items):
        items = np.array([item], np.int64)
        images = source.read(items).on_host()
        if images.masks is None:
            raise ValueError(f"{name} has no masks, which segmentation is compared with: use masks:PATH")
        region = None if images.regions is None else np.asarray(images.regions[0]) > 0
        if region is not None and not region.any():
            source.note(f"{name}: image {_name_of(source, item)} has no pixel inside its field of view and is left out")
        elif readable(source, items).all():
            yield MaskedImage(np.asarray(images.pixels[0]), np.asarray(images.masks[0]) > 0, region, item)
        progress.count(item + 1, source.num_items, "images", detail)


def _name_of(source: "Source", item: int) -> str:
    """Where an image is stored, or its number."""
    return source.item_name(item) if isinstance(source, ImageSource) else str(item)
