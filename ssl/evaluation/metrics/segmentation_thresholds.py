"""The threshold of probabilities at which the images of a validation set are segmented best."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from wildfern.ssl.evaluation.metrics.pixel_ranking import SegmentedImage, count_at_least, sorted_pixels

THRESHOLDS = np.arange(1, 100) / 100
EQUAL = 1e-12  # means that differ by less are equal: rounding of sums in another order


def best_threshold(
    images: Iterable[SegmentedImage], metric: Literal["dice", "iou"] = "dice", thresholds: ArrayLike = THRESHOLDS
) -> tuple[float, float]:
    """The threshold with the highest mean over the images of each image's Dice or IoU, and that mean.

    A pixel is predicted if its probability is at least the threshold (`pixel_ranking.at_least`). An image whose region has no
    mask pixel has the score 1 where nothing is predicted, else 0. Of equally good thresholds the one nearest 0.5 is taken, of two
    such the lower. Reads each image once and keeps none. Raises ValueError for no images, another metric, and thresholds that
    are not [T] in [0, 1]; other errors as `pixel_ranking.sorted_pixels`.
    """
    if metric not in ("dice", "iou"):
        raise ValueError(f"metric is dice or iou, got {metric!r}")
    candidates = np.asarray(thresholds, np.float64)
    if candidates.ndim != 1 or not len(candidates) or not ((candidates >= 0) & (candidates <= 1)).all():
        raise ValueError(f"thresholds are numbers [T] in [0, 1], got {candidates.tolist()}")
    total, n = np.zeros(len(candidates)), 0
    weight = 2 if metric == "dice" else 1  # of true positives
    for image in images:
        positive, negative = sorted_pixels(*image)
        found, wrong = count_at_least(positive, candidates), count_at_least(negative, candidates)
        right = weight * found
        whole = right + wrong + len(positive) - found
        total += np.where(whole > 0, right / np.maximum(whole, 1), 1.0)
        n += 1
    if not n:
        raise ValueError("there is no image to choose a threshold on")
    means = total / n
    equal = np.flatnonzero(means >= means.max() - EQUAL)
    order = np.lexsort((candidates[equal], np.abs(candidates[equal] - 0.5).round(9)))
    best = equal[order[0]]
    return float(candidates[best]), float(means[best])
