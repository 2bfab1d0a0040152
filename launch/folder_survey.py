"""What `wildfern init` needs to know about a folder of images, from a sample of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.launch.errors import RunError
from wildfern.launch.stats import examine, open_with_classes
from wildfern.printable import printable
from wildfern.ssl.data import DataError, Source, UnreadableImage, open_source
from wildfern.ssl.data.tiff_image import TiffImage

EXAMINED = 100
FEWEST_OF_CLASS = 5  # images, so that the fifth that is held out for testing has one
LEAST_SIDE = 16  # pixels; smaller images are left out where most are much larger


@dataclass(frozen=True)
class Survey:
    """Counts of all images, and sizes and values of a sample.

    `gray`: all bands of an image are equal. `decoding`: arguments of the source that read these images (`bands`, `value_range`,
    `min_side`). `classes`: number of images by class, if sub-folders may be classes.
    """

    images: int
    width: int  # medians, in pixels
    height: int
    channels: int
    gray: bool
    types: list[str]  # as stored
    mean: list[float]  # of the pixels as they are read with `decoding`, in [0, 1]
    std: list[float]
    decoding: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def side(self) -> int:
        """The shorter side of a typical image."""
        return min(self.width, self.height)


def survey_folder(folder: str) -> Survey:
    """Examine up to 100 images spread evenly over a folder. Raises DataError or RunError for one without images to train on."""
    name, decoding = f"folder:{folder}", {}
    if (bands := _bands_without_color(open_source(name, "train", check_headers=False))) is not None:
        decoding["bands"] = list(range(1, bands + 1))
    source, sample, labels = _examined(name, decoding)
    if sample.is_deep:
        ranges = [[float(f"{low:.6g}"), float(f"{high:.6g}")] for low, high in sample.ranges()]
        ranges = [pair if pair[0] < pair[1] else [pair[0], pair[0] + 1] for pair in ranges]
        decoding["value_range"] = ranges if len(ranges) > 1 and "bands" in decoding else _together(ranges)
        source, sample, labels = _examined(name, decoding)  # mean and deviation as they are with this range
    widths, heights = np.array(sample.sizes).T
    if np.minimum(widths, heights).min() < LEAST_SIDE <= np.median(np.minimum(widths, heights)) / 3:
        decoding["min_side"] = LEAST_SIDE
    mean, std = sample.moments()
    pixels = sample.values
    return Survey(
        images=source.num_items or 0,
        width=int(np.median(widths)),
        height=int(np.median(heights)),
        channels=next(iter(sample.channels)),
        gray=all(len(bands) == 1 or all(np.array_equal(bands[0], other) for other in bands[1:]) for bands in pixels),
        types=sorted(sample.types),
        mean=[float(f"{value:.4g}") for value in mean],
        std=[float(f"{value:.4g}") for value in std],
        decoding=decoding,
        classes=_classes(source, labels),
        skipped=dict(source.skipped),
        notes=[note for note in source.notes if "passed over" in note],
    )


def _examined(name: str, decoding: Mapping[str, Any]) -> tuple[Source, Any, NDArray | None]:
    source = open_with_classes(name, "train", dict(decoding), explicit=False)
    sample, labels, number = examine(source, EXAMINED)
    if not sample.sizes:
        first, reason = next(iter(source.skipped.items()), (name, "no images"))
        raise RunError(printable(f"none of {number} images can be read; for example {first}: {reason}"))
    return source, sample, labels


def _bands_without_color(source: Source) -> int | None:
    """The number of bands of the first file, if it is a TIFF of several bands that are not red, green and blue."""
    first = next(iter(source.files() or ()), None)
    if first is None or not first.path.lower().endswith((".tif", ".tiff")):
        return None
    try:
        with TiffImage(first.path) as tiff:
            return tiff.samples if tiff.samples > 1 and not tiff.is_color else None
    except (UnreadableImage, OSError, ValueError):
        return None


def _together(ranges: list[list[float]]) -> list[float]:
    """One range that holds those of all bands."""
    return [min(low for low, _ in ranges), max(high for _, high in ranges)]


def _classes(source: Source, labels: NDArray | None) -> dict[str, int]:
    """Images by class; empty unless there are several classes with enough images, that have nearly all of them."""
    try:
        if labels is None or labels.ndim != 1 or not source.class_names or len(labels) != source.num_items:
            return {}
    except DataError:
        return {}
    counts = np.bincount(labels[labels >= 0], minlength=len(source.class_names))
    enough = np.median(counts) >= FEWEST_OF_CLASS and counts.sum() >= 0.9 * len(labels)
    return dict(zip(source.class_names, counts.tolist(), strict=True)) if len(counts) > 1 and enough else {}
