"""Centerline Dice: whether the skeletons of prediction and mask lie in each other (Shit et al., CVPR 2021, "clDice")."""

import numpy as np
from numpy.typing import ArrayLike

from wildfern.ssl.evaluation.metrics.overlap import Mask, binary_pair


def cl_dice(predicted: ArrayLike, mask: ArrayLike, region: ArrayLike | None = None) -> float | None:
    """The harmonic mean of topology precision and topology sensitivity (eq. 1-3), in [0, 1].

    Topology precision is the share of the prediction's skeleton that is in the mask, topology sensitivity the share of the
    mask's skeleton that is in the prediction. Pixels outside of the region are removed before the skeletons are made. None for a
    mask without pixels; 0 if only the prediction has none. Errors as `overlap.binary_pair`.
    """
    predicted, mask, _ = binary_pair(predicted, mask, region)
    if not mask.any():
        return None
    if not predicted.any():
        return 0.0
    precision = _share_within(skeleton(predicted), mask)
    sensitivity = _share_within(skeleton(mask), predicted)
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def skeleton(mask: Mask) -> Mask:
    """The center lines of bool[H, W], one pixel wide, of every 8-connected component (Zhang & Suen, 1984)."""
    from skimage.morphology import skeletonize  # here, as importing it takes a tenth of a second

    return np.asarray(skeletonize(mask), np.bool_)


def _share_within(line: Mask, area: Mask) -> float:
    return int(np.count_nonzero(line & area)) / int(np.count_nonzero(line))
