"""Masks without their smallest objects, which are mostly noise."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label


def without_small_objects(mask: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """The mask bool[H, W] without objects of fewer than `pixels`; pixels that share a side or a corner are one object."""
    objects, _ = label(mask, structure=np.ones((3, 3)))
    stays = np.bincount(objects.ravel()) >= pixels
    stays[0] = False  # the background
    return stays[objects]
