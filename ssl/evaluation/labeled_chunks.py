"""The images of a source in chunks, with their labels and masks."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data import Images, Loader, Subset, square
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.evaluation.preprocessing import Pixels
from wildfern.ssl.tracking.cpu_cores import usable_cores

if TYPE_CHECKING:
    from wildfern.ssl.data import Source

Labels = NDArray[np.int64] | NDArray[np.uint8] | NDArray[np.float32]  # float32[n, P]: targets
CHUNK = 256  # images
AT_ONCE = 8  # images decoded before large ones are made smaller: 36 MB each from a camera of 12 megapixels
LARGE = 2**20  # pixels
MOST_THREADS = 4
MULTI_LABEL = "linear, knn, finetune and retrieval"  # the built-in evaluators that take multi-hot labels


class LabeledChunk(NamedTuple):
    """Images uint8[n, H, W, C] or a list of uint8[Hi, Wi, C], labels as of `label_array` (or targets), masks or None.

    They come from the items `first` to `stop` - 1 of the source, some of which may have no label: those with the numbers `items`.
    """

    pixels: Pixels
    labels: Labels
    masks: Pixels | None = None
    first: int = 0
    stop: int = 0
    items: NDArray[np.int64] | None = None


def label_array(labels: Any) -> Labels:
    """Labels as int64[n] (-1: none), or multi-hot as uint8[n, K]. Raises ValueError for any other shape or values."""
    labels = np.asarray(labels)
    if labels.ndim == 1:
        if labels.dtype.kind == "f" and len(odd := labels[~np.isfinite(labels) | (labels != np.round(labels))]):
            raise ValueError(
                f"labels are whole numbers, one for each class, got {odd[0]:g}; the evaluator regression predicts numbers, "
                "which are in the target_columns of parquet: or csv:"
            )
        return labels.astype(np.int64, copy=False)
    if labels.ndim != 2 or not labels.shape[1]:
        raise ValueError(f"labels are int64[n] or multi-hot uint8[n, K], got {labels.dtype}{list(labels.shape)}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"multi-hot labels are 0 or 1, got values from {labels.min()} to {labels.max()}")
    return labels.astype(np.uint8, copy=False)


def target_array(parameters: Any, names: Sequence[str]) -> NDArray[np.float32]:
    """Targets as float32[n, P]; NaN where an image has none. Raises ValueError for another shape, and for infinity."""
    targets = np.asarray(parameters, np.float32)
    if targets.ndim != 2 or targets.shape[1] != len(names):
        raise ValueError(
            f"images have float32[n, {len(names)}] numbers ({', '.join(names)}), got {list(targets.shape)}"
        )
    if np.isinf(targets).any():
        raise ValueError(f"a number is infinite: {names[int(np.isinf(targets).any(0).argmax())]}")
    return targets


def check_number_of_labels(labels: Labels, name: str, single_label: Sequence[str]) -> None:
    """Raise ValueError for multi-hot labels if there are protocols, `single_label`, that cannot use them."""
    if labels.ndim == 2 and single_label:
        raise ValueError(
            f"{name}: its images may have several labels each, and {', '.join(single_label)} "
            f"need{'s' * (len(single_label) == 1)} one label each; {MULTI_LABEL} can use several"
        )


def labeled_chunks(
    source: "Source",
    name: str,
    chunk: int = CHUNK,
    *,
    unlabeled: bool = False,
    single_label: Sequence[str] = (),
    size: int | None = None,
    threads: int | None = None,
    targets: bool = False,
    share: tuple[int, int] = (0, 1),
) -> Iterator[LabeledChunk]:
    """The labeled images of a source, `chunk` items at a time; items with label -1 are left out unless `unlabeled`, and
    so are those that cannot be read, in whose place a source reads another image.

    `targets`: the labels are the source's parameters instead, and items without one of them are left out. `share` = (rank, W):
    only the chunks of this rank, every W-th one.
    Multi-hot labels have no mark for "unlabeled": an image of none of the classes is kept. `single_label` names the
    protocols that cannot use multi-hot labels. Images are read by `threads` threads (default: as many as there are cores, at most
    4) while the caller uses the ones before; with `size`, those above a megapixel are cropped and resized while they are
    read, so that memory does not grow with their size. Raises ValueError, naming `name`, for an endless or empty source, for one
    without labels, and for multi-hot labels if there is such a protocol.
    """
    if source.num_items is None:
        raise ValueError(f"{name}: an endless stream cannot be evaluated on; name a data set with labels")
    if not source.num_items:
        raise ValueError(f"{name}: this split has no images")
    if targets and not source.parameter_names:
        raise ValueError(
            f"{name}: these images come without numbers to predict; a table has them in its target_columns "
            "(parquet:, csv:), and some generators give the parameters of their images (ifs, spectrum)"
        )
    if not unlabeled and not targets and source.num_classes is None:
        raise ValueError(
            f"{name}: these images have no labels, and this evaluation needs them; "
            "for a folder, put the images of each class into a separate sub-folder"
        )
    source.reads_parameters = source.reads_parameters or targets
    total = source.num_items
    steps = range(share[0], math.ceil(total / chunk), share[1])
    threads = max(1, min(MOST_THREADS, usable_cores(), len(steps))) if threads is None else threads

    def read(number: int) -> Images:
        start = steps[number] * chunk
        return _read(source, np.arange(start, min(start + chunk, total), dtype=np.int64), size)

    with Loader(read, 0, len(steps), threads, prefetch=1) as loader:
        for step, images in zip(steps, loader, strict=True):
            start = step * chunk
            stop = min(start + chunk, total)
            labels, masks = images.labels, images.masks
            if targets:
                labels = images.parameters
            if labels is None and not unlabeled:
                what = "numbers to predict" if targets else "labels"
                raise ValueError(f"{name}: images {start} to {start + len(images.pixels) - 1} came without {what}")
            if labels is None:
                labels = np.full(len(images.pixels), -1, np.int64)
            try:
                labels = target_array(labels, source.parameter_names) if targets else label_array(labels)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            check_number_of_labels(labels, name, single_label)
            if targets:
                kept = np.flatnonzero(~np.isnan(labels).any(1))
            else:
                kept = np.arange(len(labels)) if unlabeled or labels.ndim == 2 else np.flatnonzero(labels >= 0)
            kept = kept[readable(source, start + kept)]
            if len(kept):
                masks = None if masks is None else _picked(masks, kept)
                yield LabeledChunk(_picked(images.pixels, kept), labels[kept], masks, start, stop, start + kept)


def readable(source: "Source", items: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these items, that were read, were not replaced by another image because they cannot be read."""
    while isinstance(source, Subset):
        source, items = source.source, source.items[items]
    if not isinstance(source, ImageSource) or not (skipped := source.skipped):
        return np.ones(len(items), bool)
    return np.array([source.item_name(int(item)) not in skipped for item in items], bool)


def _read(source: "Source", items: NDArray[np.int64], size: int | None) -> Images:
    """These images; with `size`, and without masks, those above a megapixel are made smaller, a few at a time."""
    if size is None or source.fixed_size:
        return source.read(items).on_host()
    parts = []
    for start in range(0, len(items), AT_ONCE):
        images = source.read(items[start : start + AT_ONCE]).as_lists()
        if images.masks is None:
            small = [square(one, size) if one.shape[0] * one.shape[1] > LARGE else one for one in images.pixels]
            images = replace(images, pixels=small)
        parts.append(images)
    masks = None if any(part.masks is None for part in parts) else [mask for part in parts for mask in part.masks]
    labels = None if any(part.labels is None for part in parts) else np.concatenate([part.labels for part in parts])
    gathered = Images.gather([image for part in parts for image in part.pixels], labels, masks=masks)
    if any(part.parameters is None for part in parts):
        return gathered
    return replace(gathered, parameters=np.concatenate([part.parameters for part in parts]))


def _picked(images: Pixels, index: NDArray[np.int64]) -> Pixels:
    return images[index] if isinstance(images, np.ndarray) else [images[i] for i in index]
