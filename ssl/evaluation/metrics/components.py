"""Connected components of a segmentation: whether it has as many as the mask."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import label

from wildfern.ssl.evaluation.metrics.overlap import Mask, binary_pair


def component_error(predicted: ArrayLike, mask: ArrayLike, region: ArrayLike | None = None) -> int:
    """|components of the prediction - components of the mask|, the error of Betti number 0; 0 is best.

    Components are 8-connected: pixels that share a side or a corner are together. Pixels outside of the region are removed
    first, so an object that its border cuts counts as its parts. Errors as `overlap.binary_pair`.
    """
    predicted, mask, _ = binary_pair(predicted, mask, region)
    return abs(_components(predicted) - _components(mask))


def _components(mask: Mask) -> int:
    return int(label(mask, structure=np.ones((3, 3)))[1])
