"""Features of many images of a source for several networks, read once, a few at a time: photographs may be large."""

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wildfern.ssl.data import DataError, Images, Loader, Source, square
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.evaluation.evaluator import Features
from wildfern.ssl.evaluation.features import extract_features
from wildfern.ssl.evaluation.preprocessing import Preprocessing
from wildfern.ssl.tracking.cpu_cores import usable_cores
from wildfern.ssl.tracking.progress import SILENT, Progress

AT_ONCE = 8  # images decoded before they are made smaller: 36 MB each from a camera of 12 megapixels
LARGE = 256  # pixels; larger images are cropped and resized while they are read
MOST_THREADS = 4


def read_bank(
    source: Source,
    items: NDArray[np.int64],
    backbones: Mapping[str, nn.Module],
    preprocessing: Mapping[str, Preprocessing],
    batch_size: int = 64,
    progress: Progress = SILENT,
) -> tuple[NDArray[np.int64], dict[str, Features]]:
    """The items int64[N] that can be read, and their features by network, with labels if the source has any.

    Sources replace an unreadable image by another one: these are left out, since the other one would be its neighbor.
    """
    size = max(one.size or LARGE for one in preprocessing.values())
    batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
    parts: dict[str, list[Features]] = {name: [] for name in backbones}
    kept = []
    threads = max(1, min(MOST_THREADS, usable_cores(), len(batches)))
    with Loader(lambda step: _read(source, batches[step], size), 0, len(batches), threads, prefetch=1) as loader:
        progress.count(0, len(items), "images")
        for step, images in enumerate(loader):
            wanted = _readable(source, batches[step])
            if len(wanted):
                pixels = [images.pixels[place] for place in wanted]
                labels = None if images.labels is None else images.labels[wanted]
                for name, backbone in backbones.items():
                    settings = vars(preprocessing[name])
                    chunk = extract_features(backbone, [(pixels, labels)], batch_size=batch_size, **settings)
                    parts[name].append(chunk)
                kept.append(batches[step][wanted])
            progress.count(min((step + 1) * batch_size, len(items)), len(items), "images")
    if not kept:
        name, reason = next(iter(source.skipped.items()))
        raise DataError(f"none of {len(items)} images can be read; for example {name}: {reason}")
    names = None
    with suppress(DataError):  # labels that cannot be used
        names = source.class_names
    named = {
        name: Features(found.x, found.y, None if names is None else tuple(names))
        for name, found in ((name, Features.concatenated(found)) for name, found in parts.items())
    }
    return np.concatenate(kept), named


def _read(source: Source, items: NDArray[np.int64], size: int) -> Images:
    """A batch, with large images cropped to the center and resized to `size`."""
    pixels, labels = [], []
    for start in range(0, len(items), AT_ONCE):
        images = source.read(items[start : start + AT_ONCE]).as_lists()
        pixels += [square(image, size) if max(image.shape[:2]) > LARGE else image for image in images.pixels]
        labels.append(images.labels)
    whole = None if any(part is None for part in labels) else np.concatenate(labels)
    return Images(pixels, whole)


def _readable(source: Source, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of these items, that were read, were not replaced by another image."""
    if not isinstance(source, ImageSource) or not (skipped := source.skipped):
        return np.arange(len(items))
    return np.array([place for place, item in enumerate(items) if source.item_name(int(item)) not in skipped], np.int64)
