"""Precision and recall of pixels that may be off by a few pixels, as the borders of hand-drawn masks are."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import distance_transform_edt

from wildfern.ssl.evaluation.metrics.overlap import Mask, binary_pair


class TolerantOverlap(NamedTuple):
    """Shares in [0, 1]; f1 is the harmonic mean of the others, 0 if they are."""

    precision: float
    recall: float
    f1: float


def tolerant_overlap(
    predicted: ArrayLike, mask: ArrayLike, tolerance: float = 2.0, region: ArrayLike | None = None
) -> TolerantOverlap:
    """Relaxed precision and recall (Mnih & Hinton, ECCV 2010, "Learning to detect roads in high-resolution aerial images").

    A predicted pixel is right if a mask pixel is within `tolerance` pixels (Euclidean distance of pixel centers), and a mask
    pixel is found if a predicted pixel is. Pixels outside of the region are removed first, so they neither count nor match. All
    three are 1 if prediction and mask have no pixels, and 0 if one of them has none. Raises ValueError for a tolerance that is
    not finite or below 0; other errors as `overlap.binary_pair`.
    """
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"tolerance is a distance in pixels of at least 0, got {tolerance}")
    predicted, mask, _ = binary_pair(predicted, mask, region)
    if not predicted.any() or not mask.any():
        alike = float(predicted.any() == mask.any())
        return TolerantOverlap(alike, alike, alike)
    precision = _share_near(predicted, mask, tolerance)
    recall = _share_near(mask, predicted, tolerance)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return TolerantOverlap(precision, recall, f1)


def _share_near(pixels: Mask, others: Mask, tolerance: float) -> float:
    return float((distance_transform_edt(~others)[pixels] <= tolerance).mean())
