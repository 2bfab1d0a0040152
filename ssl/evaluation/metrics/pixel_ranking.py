"""How well the probabilities of an image's pixels rank the mask's above the others: ROC AUC, average precision, curves."""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.ssl.evaluation.metrics.overlap import Mask, binary_image, region_of

# Probability [H, W], mask [H, W] and region ([H, W], or None for all pixels) of an image.
SegmentedImage: TypeAlias = tuple[ArrayLike, ArrayLike, ArrayLike | None]

CURVE_THRESHOLDS = np.arange(1001) / 1000


def roc_auc(probability: ArrayLike, mask: ArrayLike, region: ArrayLike | None = None) -> float | None:
    """The chance that a pixel of the mask is above one of the background, equal ones counting half (Hanley & McNeil, 1982).

    Over all pairs of pixels of the region. None if it has only mask or only background; errors as `sorted_pixels`.
    """
    positive, negative = sorted_pixels(probability, mask, region)
    if not len(positive) or not len(negative):
        return None
    below = np.searchsorted(negative, positive, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(negative, positive, side="right").sum(dtype=np.int64)
    return int(below + not_above) / (2 * len(positive) * len(negative))


def average_precision(probability: ArrayLike, mask: ArrayLike, region: ArrayLike | None = None) -> float | None:
    """The sum over the distinct probabilities, from the highest, of the precision at it times the gain in recall.

    Over the pixels of the region; equal probabilities are one step, as in scikit-learn's `average_precision_score`, so a
    constant has the share of the mask. None without mask pixels in the region; errors as `sorted_pixels`.
    """
    positive, negative = sorted_pixels(probability, mask, region)
    if not len(positive):
        return None
    found = len(positive) - np.searchsorted(positive, positive, side="left")
    wrong = len(negative) - np.searchsorted(negative, positive, side="left")
    return float((found / (found + wrong)).mean())


def precision_recall_curve(
    images: Iterable[SegmentedImage],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds 0, 0.001 … 1, and precision and recall at each, all float64[1001], of the pixels of all images together.

    A pixel is predicted at a threshold if its probability is at least that. The pixels of all images are counted together, so a
    large image weighs more than a small one. Precision is 1 where nothing is predicted. Raises ValueError if no image has a
    mask pixel in its region; other errors as `sorted_pixels`.
    """
    counts = np.zeros((2, len(CURVE_THRESHOLDS)), np.int64)
    for image in images:
        counts += curve_counts(*sorted_pixels(*image))
    return (CURVE_THRESHOLDS.copy(), *precision_and_recall(counts))


def curve_counts(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> NDArray[np.int64]:
    """How many of an image's `sorted_pixels` are at least each of `CURVE_THRESHOLDS`: int64[2, 1001], of its mask and others.

    The first threshold is 0, so the first counts are all pixels. Counts of several images are added.
    """
    return np.stack([count_at_least(pixels, CURVE_THRESHOLDS) for pixels in (positive, negative)])


def precision_and_recall(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall, float64[1001], of `curve_counts` or a sum of them; precision is 1 where nothing is predicted.

    Raises ValueError if they have no mask pixel.
    """
    found, wrong = counts
    if not found[0]:
        raise ValueError("no image has a mask pixel in its region, so there is no recall")
    predicted = found + wrong
    return np.where(predicted > 0, found / np.maximum(predicted, 1), 1.0), found / found[0]


def sorted_pixels(
    probability: ArrayLike, mask: ArrayLike, region: ArrayLike | None = None
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The probabilities of the region's mask pixels, and of its other pixels, each from the lowest.

    Raises ValueError for arrays that are not [H, W] of one size, probabilities that are not floats in [0, 1], masks and regions
    with values other than 0 and 1, and a region without pixels.
    """
    mask = binary_image(mask, "mask")
    probability = probability_image(probability, mask)
    inside = region_of(region, mask)
    positive, negative = (mask, ~mask) if inside is None else (mask & inside, ~mask & inside)
    return np.sort(probability[positive]), np.sort(probability[negative])


def count_at_least(ordered: NDArray[np.floating], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of the ordered probabilities are at least each threshold, as `at_least` decides: int64[T]."""
    return len(ordered) - np.searchsorted(ordered, thresholds.astype(ordered.dtype), side="left")


def at_least(probability: NDArray[np.floating], threshold: float) -> Mask:
    """Where a probability reaches the threshold, rounded to the probability's type: float32 0.7 reaches 0.7."""
    return probability >= probability.dtype.type(threshold)


def probability_image(probability: ArrayLike, mask: Mask) -> NDArray[np.floating]:
    """The probability of each pixel of the mask's image as an array; errors as `sorted_pixels`."""
    array = np.asarray(probability)
    if array.shape != mask.shape:
        raise ValueError(
            f"probability and mask are [H, W] of one image, got {list(array.shape)} and {list(mask.shape)}"
        )
    if array.dtype.kind != "f":
        raise ValueError(f"probability has floats, got {array.dtype}")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # also of NaN
        raise ValueError(f"probability has values in [0, 1], got {low} to {high}")
    return array
