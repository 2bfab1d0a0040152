"""The details of segmentations as named arrays of a file in a run folder, and back, which may be of a stranger."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.evaluation.evaluator import SegmentationDetails
from wildfern.ssl.evaluation.metrics.pixel_ranking import CURVE_THRESHOLDS

MOST_OVERLAYS = 8  # of a segmentation
MOST_PIXELS = 2**53  # of all images: exact as floats

Segmentations = dict[tuple[str, str], SegmentationDetails]  # by (protocol, backbone)


def segmentation_arrays(found: Segmentations) -> tuple[list[list[Any]], dict[str, NDArray[Any]]]:
    """[protocol, backbone, threshold] of each segmentation, and the arrays of all by name."""
    described, arrays = [], {}
    for place, ((protocol, backbone), one) in enumerate(found.items()):
        described.append([protocol, backbone, one.threshold])
        arrays |= {f"segmentation.{place}.{name}": getattr(one, name) for name in ("counts", "items", "dice")}
        for number, overlay in enumerate(one.overlays):
            arrays[f"segmentation.{place}.overlay.{number}"] = np.frombuffer(overlay, np.uint8)
    return described, arrays


def parsed_segmentations(described: Any, arrays: Mapping[str, NDArray[Any]]) -> Segmentations:
    """What `segmentation_arrays` made. Raises ValueError, KeyError or TypeError for anything else.

    Overlays are not checked to be JPEG files.
    """
    return {
        (str(protocol), str(backbone)): _parsed(f"segmentation.{place}", threshold, arrays)
        for place, (protocol, backbone, threshold) in enumerate(described)
    }


def _parsed(name: str, threshold: Any, arrays: Mapping[str, NDArray[Any]]) -> SegmentationDetails:
    counts, items, dice = (arrays[f"{name}.{part}"] for part in ("counts", "items", "dice"))
    if threshold is not None and not (type(threshold) in (int, float) and 0 <= threshold <= 1):
        raise ValueError(f"{name} has a threshold that is not in [0, 1]")
    if counts.dtype != np.int64 or counts.shape != (2, len(CURVE_THRESHOLDS)):
        raise ValueError(f"{name}.counts is {counts.dtype} of the shape {list(counts.shape)}")
    if counts.min() < 0 or counts.max() > MOST_PIXELS or (counts[:, 1:] > counts[:, :-1]).any():
        raise ValueError(f"{name}.counts are not numbers of pixels that reach thresholds in ascending order")
    if items.dtype != np.int64 or items.ndim != 1 or len(items) > MOST_OVERLAYS or (items < 0).any():
        raise ValueError(f"{name}.items are not the numbers of at most {MOST_OVERLAYS} images")
    if dice.dtype != np.float32 or dice.shape != items.shape or not ((dice >= 0) & (dice <= 1)).all():
        raise ValueError(f"{name}.dice are not shares, one for each image")
    overlays = [arrays[f"{name}.overlay.{number}"] for number in range(len(items))]
    for number, one in enumerate(overlays):
        if one.dtype != np.uint8 or one.ndim != 1:
            raise ValueError(f"{name}.overlay.{number} is {one.dtype} of the shape {list(one.shape)}")
    return SegmentationDetails(counts, threshold, items, dice, tuple(one.tobytes() for one in overlays))
