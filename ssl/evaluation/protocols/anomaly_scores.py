"""Scores of anomaly detection: AUROC, average precision and F1-max of images and of pixels, and per-region overlap (PRO)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from wildfern.ssl.evaluation.evaluator import Score
from wildfern.ssl.evaluation.metrics.bootstrap import DRAWS, statistic_interval
from wildfern.ssl.evaluation.metrics.classification_scores import joined

FALSE_POSITIVES = 0.3  # the largest share of normal pixels up to which PRO is integrated (Bergmann et al., 2020)
QUANTILES = 1024  # of the normal pixels, and as many of the anomalous ones: thresholds of the intervals of pixel scores
DIAGONAL = np.ones((3, 3))  # pixels that touch at a corner are of one region
CHOSEN_ON_TEST = "at the best threshold for these test images, so it is optimistic"

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Detections:
    """What has a score of at least each of B falling thresholds, float64[B] each; the last threshold has everything.

    `anomalous` and `normal` are numbers of images or pixels; `covered` is the share of an anomalous region's pixels, its mean
    over all regions.
    """

    anomalous: Values
    normal: Values
    covered: Values | None = None

    @property
    def defined(self) -> bool:
        """Whether there are both anomalous and normal ones, without which no score is defined."""
        return len(self.anomalous) > 0 and bool(self.anomalous[-1] > 0 and self.normal[-1] > 0)


def detections(scores: ArrayLike, anomalous: ArrayLike, covered: ArrayLike | None = None) -> Detections:
    """The detections at each distinct score, of scores float[M] and bool[M].

    `covered` float[M]: what each pixel adds to the share of its region that is covered, divided by the number of regions.
    Raises ValueError for no scores, and for some that are not finite.
    """
    scores, anomalous = np.asarray(scores), np.asarray(anomalous, bool)
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"anomaly scores must be finite numbers, at least one; got {scores.dtype}{list(scores.shape)}")
    order = np.argsort(scores)[::-1]
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # of each distinct score
    found = np.cumsum(anomalous[order], dtype=np.float64)[last]
    overlap = None if covered is None else np.cumsum(np.asarray(covered, np.float64)[order])[last]
    return Detections(found, last + 1.0 - found, overlap)


def auroc(found: Detections) -> float:
    """The area under the ROC curve: the chance that an anomalous one has a higher score than a normal one, ties half."""
    return _area(found, found.anomalous / found.anomalous[-1], 1.0) if found.defined else np.nan


def average_precision(found: Detections) -> float:
    """The sum over the distinct scores of the precision times the gain in recall (scikit-learn's definition)."""
    if not found.defined:
        return np.nan
    precision = found.anomalous / np.maximum(found.anomalous + found.normal, 1e-300)
    return float(precision @ np.diff(found.anomalous, prepend=0.0) / found.anomalous[-1])


def f1_max(found: Detections) -> float:
    """The highest F1, 2 · precision · recall / (precision + recall), of all thresholds."""
    if not found.defined:
        return np.nan
    return float((2 * found.anomalous / (found.anomalous + found.normal + found.anomalous[-1])).max())


def per_region_overlap(found: Detections, limit: float = FALSE_POSITIVES) -> float:
    """PRO: the covered share of a region, mean over regions, and over the false positive rates from 0 to `limit`.

    Every region counts the same, whatever its size (Bergmann et al., "Uninformed Students", CVPR 2020). Raises ValueError for
    detections without `covered`.
    """
    if found.covered is None:
        raise ValueError("per_region_overlap() needs what each threshold covers of the regions")
    return _area(found, found.covered, limit) / limit if found.defined else np.nan


def _area(found: Detections, heights: Values, limit: float) -> float:
    """The area under `heights` over the share of normal ones, by trapezoids from (0, 0), up to the share `limit`."""
    x = np.append(0.0, found.normal / found.normal[-1])
    y = np.append(0.0, heights)
    inside = np.searchsorted(x, limit, side="right")
    if inside < len(x):
        x, y = np.append(x[:inside], limit), np.append(y[:inside], np.interp(limit, x, y))
    return min(limit, float(np.diff(x) @ (y[1:] + y[:-1])) / 2)  # rounding must not move it above


@dataclass(frozen=True)
class _ByImage:
    """What each of n images has between two neighboring thresholds, float32[n, B], and its number of regions, [n]."""

    anomalous: NDArray[np.float32]
    normal: NDArray[np.float32]
    covered: NDArray[np.float32] | None = None
    regions: NDArray[np.int64] | None = None

    def detections(self, images: NDArray[np.int64]) -> Detections:
        """Of a resample of the images, given by their numbers."""
        times = np.bincount(images, minlength=len(self.normal)).astype(np.float32)
        covered = None
        if self.covered is not None and self.regions is not None:
            covered = np.cumsum(times @ self.covered, dtype=np.float64) / max(1.0, float(times @ self.regions))
        found, false = (np.cumsum(times @ part, dtype=np.float64) for part in (self.anomalous, self.normal))
        return Detections(found, false, covered)


def image_scores(scores: ArrayLike, anomalous: ArrayLike, detail: str = "") -> list[Score]:
    """AUROC, average precision and F1-max of the images, from scores float[n] and bool[n]; the main score first.

    Intervals by bootstrap over the images, whose scores are held fixed. Raises ValueError if not both kinds are there.
    """
    scores, anomalous = np.asarray(scores), np.asarray(anomalous, bool)
    exact = detections(scores, anomalous)
    if not exact.defined:
        raise ValueError(f"anomaly scores need both kinds of images; of {len(scores)}, {anomalous.sum()} are anomalous")
    distinct, place = np.unique(-scores, return_inverse=True)
    own = np.zeros((len(scores), len(distinct)), np.float32)
    own[np.arange(len(scores)), place] = 1.0
    by_image = _ByImage(own * anomalous[:, None], own * ~anomalous[:, None])
    return [
        _score("auroc", auroc, exact, by_image, detail),
        _score("average_precision", average_precision, exact, by_image, detail),
        _score("f1_max", f1_max, exact, by_image, joined(detail, CHOSEN_ON_TEST)),
    ]


def pixel_scores(maps: ArrayLike, masks: ArrayLike, detail: str = "") -> list[Score]:
    """The same of all pixels of the images, and PRO: `maps` float[n, H, W] of scores, `masks` [n, H, W], not 0 in an anomaly.

    Values are exact; their intervals, by bootstrap over images, use thresholds at quantiles of the scores. Raises ValueError
    if the masks have no anomalous or no normal pixel.
    """
    maps, marked = np.asarray(maps, np.float32), np.asarray(masks) != 0
    if maps.shape != marked.shape or maps.ndim != 3:
        raise ValueError(f"maps and masks are [n, H, W] of one shape, got {list(maps.shape)} and {list(marked.shape)}")
    covered, regions = _region_shares(marked)
    exact = detections(maps.ravel(), marked.ravel(), covered.ravel() / max(1, regions.sum()))
    if not exact.defined:
        raise ValueError(
            f"pixel scores need anomalous and normal pixels; the masks mark {100 * marked.mean():g} % of them"
        )
    by_image = _between_quantiles(maps, marked, covered, regions)
    detail = joined(detail, f"all {maps.size:,} pixels")
    regional = joined(detail, f"mean over {regions.sum():,} regions, up to {100 * FALSE_POSITIVES:g} % false positives")
    return [
        _score("pixel_auroc", auroc, exact, by_image, detail),
        _score("pixel_average_precision", average_precision, exact, by_image, detail),
        _score("pixel_f1_max", f1_max, exact, by_image, joined(detail, CHOSEN_ON_TEST)),
        _score("per_region_overlap", per_region_overlap, exact, by_image, regional),
    ]


def _region_shares(marked: NDArray[np.bool_]) -> tuple[Values, NDArray[np.int64]]:
    """1 / pixels of its region for each pixel in one, else 0, float64[n, H, W]; and the number of regions of each image."""
    shares, regions = np.zeros(marked.shape), np.zeros(len(marked), np.int64)
    for image, mask in enumerate(marked):
        numbers, regions[image] = ndimage.label(mask, DIAGONAL)
        pixels = np.bincount(numbers.ravel())
        shares[image][mask] = 1.0 / pixels[numbers[mask]]
    return shares, regions


def _between_quantiles(
    maps: NDArray[np.float32], marked: NDArray[np.bool_], covered: Values, regions: NDArray[np.int64]
) -> _ByImage:
    ranks = np.linspace(0.0, 1.0, QUANTILES)
    kinds = (np.quantile(kind, ranks, method="lower") for kind in (maps[marked], maps[~marked]))
    thresholds = np.unique(np.concatenate([*kinds]))
    parts = np.zeros((3, len(maps), len(thresholds)), np.float32)
    for image, (scores, mask, shares) in enumerate(zip(maps, marked, covered, strict=True)):
        place = len(thresholds) - np.searchsorted(thresholds, scores, side="right")
        for part, weights in zip(parts, (mask, ~mask, shares), strict=True):
            part[image] = np.bincount(place.ravel(), weights.ravel(), len(thresholds))
    return _ByImage(parts[0], parts[1], parts[2], regions)


def _score(
    metric: str, statistic: Callable[[Detections], float], exact: Detections, by_image: _ByImage, detail: str
) -> Score:
    n = len(by_image.normal)
    low, high = statistic_interval(lambda images: statistic(by_image.detections(images)), n)
    how = "no interval: all resamples are alike" if n > 1 else "no interval from one test image"
    if low is not None:
        how = f"95 % interval from {DRAWS} bootstrap resamples of {n} test images, whose scores are held fixed"
    return Score(metric, statistic(exact), low, high, n, joined(detail, how))
