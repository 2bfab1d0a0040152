"""Counts of right and wrong pixels of a binary segmentation, and the shares made of them: Dice, IoU, precision, recall …"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """Numbers of pixels by prediction and mask. All shares are in [0, 1].

    A share 0 / 0 is 1 if no pixel is wrong, else 0. So a prediction without pixels has Dice, IoU, precision and recall 1 for a
    mask without pixels and 0 for any other mask.
    """

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN), which is the F1 score (Dice, 1945)."""
        wrong = self.false_positive + self.false_negative
        return self._share(2 * self.true_positive, 2 * self.true_positive + wrong)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), intersection over union (Jaccard, 1912)."""
        return self._share(self.true_positive, self.true_positive + self.false_positive + self.false_negative)

    @property
    def precision(self) -> float:
        """TP / (TP + FP), the share of the predicted pixels that are of the mask."""
        return self._share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """TP / (TP + FN), the share of the mask's pixels that are predicted; also called sensitivity."""
        return self._share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP), the share of the background that is not predicted; it grows with the region's background."""
        return self._share(self.true_negative, self.true_negative + self.false_positive)

    @property
    def accuracy(self) -> float:
        """(TP + TN) / all pixels; like the specificity it grows with the region's background."""
        right = self.true_positive + self.true_negative
        return self._share(right, right + self.false_positive + self.false_negative)

    def _share(self, part: int, whole: int) -> float:
        return part / whole if whole else float(self.false_positive + self.false_negative == 0)


def overlap(predicted: ArrayLike, mask: ArrayLike, region: ArrayLike | None = None) -> Overlap:
    """The counts over the pixels of the region, by default over all pixels; errors as `binary_pair`."""
    predicted, mask, pixels = binary_pair(predicted, mask, region)
    both = int(np.count_nonzero(predicted & mask))
    false_positive = int(np.count_nonzero(predicted)) - both
    false_negative = int(np.count_nonzero(mask)) - both
    return Overlap(both, false_positive, false_negative, pixels - both - false_positive - false_negative)


def binary_pair(predicted: ArrayLike, mask: ArrayLike, region: ArrayLike | None = None) -> tuple[Mask, Mask, int]:
    """Both as bool[H, W] without the pixels outside of the region, and the region's number of pixels.

    Raises ValueError for arrays that are not [H, W] of one size, values other than 0 and 1, and a region without pixels.
    """
    predicted, mask = binary_image(predicted, "predicted"), binary_image(mask, "mask")
    if predicted.shape != mask.shape:
        raise ValueError(f"predicted and mask are of one image, got {list(predicted.shape)} and {list(mask.shape)}")
    inside = region_of(region, mask)
    return (predicted, mask, mask.size) if inside is None else (predicted & inside, mask & inside, int(inside.sum()))


def region_of(region: ArrayLike | None, mask: Mask) -> Mask | None:
    """The region of the mask's image as bool[H, W], None for all pixels; errors as `binary_pair`."""
    if region is None:
        return None
    inside = binary_image(region, "region")
    if inside.shape != mask.shape:
        raise ValueError(f"region and mask are of one image, got {list(inside.shape)} and {list(mask.shape)}")
    if not inside.any():
        raise ValueError("the region has no pixels, so there is nothing to score")
    return inside


def binary_image(values: ArrayLike, name: str) -> Mask:
    """The values as bool[H, W]; ValueError, with their name, unless they are bool or integers 0 and 1 and at least one."""
    array = np.asarray(values)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} is [H, W] of at least one pixel, got {list(array.shape)}")
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} is bool or integers 0 and 1, got {array.dtype}")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"{name} has only the values 0 and 1, got {array.min()} to {array.max()}")
    return array.astype(np.bool_)
