"""Scores of a classification with their 95 % intervals."""

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.ssl.evaluation.evaluator import Predictions, Score
from wildfern.ssl.evaluation.metrics.bootstrap import DRAWS, mean_interval

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution
RANKED = 5


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion `right` of `n` (Wilson, 1927). Raises ValueError for n = 0."""
    if n < 1:
        raise ValueError("an interval needs at least one image")
    share = right / n
    center = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    # At 0 and n the bounds are exactly 0 and 1; rounding must not move them beyond the share.
    return max(0.0, min(center - reach, share)), min(1.0, max(center + reach, share))


def proportion(metric: str, right: int, n: int, detail: str = "") -> Score:
    """A share of n images with its Wilson interval."""
    low, high = wilson_interval(right, n)
    return Score(metric, right / n, low, high, n, joined(detail, f"95 % Wilson interval over {n} test images"))


def mean_score(metric: str, values: Tensor, detail: str = "", share: bool = True) -> Score:
    """The mean of float[n], one value for each test image, with its bootstrap interval; `share`: of values in [0, 1]."""
    per_image = _array(values.detach())
    low, high = mean_interval(per_image)
    how = f"no interval: all {len(per_image)} test images have the same value" if len(per_image) > 1 else ""
    how = how or "no interval from one test image"
    if low is not None:
        how = f"95 % interval from {DRAWS} bootstrap resamples of {len(per_image)} test images"
    value = float(per_image.mean(dtype=np.float64))
    return Score(metric, value, low, high, len(per_image), joined(detail, how), share, per_image)


def ranked_classes(scores: Tensor, classes: Tensor) -> Tensor:
    """The `RANKED` most likely classes int64[N, min(5, C)] by scores[N, C], best first; ties by class number."""
    return classes[scores.sort(dim=1, descending=True, stable=True).indices[:, :RANKED]]


def classification_scores(ranked: Tensor, labels: Tensor, classes: int, detail: str = "") -> list[Score]:
    """Accuracy, top-5 accuracy (for more than five `classes`) and balanced accuracy of int64[N, ≥ 1] guesses, best first.

    Balanced accuracy is the mean over the classes in `labels` of the share of their images that are right. Its interval
    combines their Wilson intervals by the method of variance estimates recovery (Zou & Donner, 2008).
    """
    return predicted_scores(Predictions(labels, ranked), classes, detail)


def predicted_scores(predictions: Predictions, classes: int, detail: str = "") -> list[Score]:
    """The scores of `classification_scores`; the first has the predictions."""
    ranked, labels = predictions.ranked, predictions.labels.to(predictions.ranked.device)
    hits = ranked == labels[:, None]
    right = hits[:, 0]
    scores = [replace(_share("accuracy", right, detail), predictions=predictions)]
    if classes > RANKED:
        scores.append(_share("top5_accuracy", hits.any(1), detail))
    found, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    per_class = torch.zeros(len(found), dtype=torch.int64, device=index.device).index_add_(0, index, right.long())
    below = above = total = 0.0
    for hit, count in zip(per_class.tolist(), counts.tolist(), strict=True):
        low, high = wilson_interval(hit, count)
        total += hit / count
        below += (hit / count - low) ** 2
        above += (high - hit / count) ** 2
    n = len(found)
    balanced, how = total / n, f"95 % interval from the Wilson intervals of {n} classes"
    low, high = max(0.0, balanced - math.sqrt(below) / n), min(1.0, balanced + math.sqrt(above) / n)
    # Each image counts as much as its class has few: their mean is the balanced accuracy.
    weighted = right.double() * (len(labels) / n / counts.double())[index]
    detail = joined(detail, how)
    scores.append(Score("balanced_accuracy", balanced, low, high, len(labels), detail, per_image=_array(weighted)))
    return scores


def _share(metric: str, right: Tensor, detail: str) -> Score:
    return replace(proportion(metric, int(right.sum()), len(right), detail), per_image=_array(right))


def _array(values: Tensor) -> NDArray[np.float32]:
    return values.cpu().numpy().astype(np.float32)


def joined(*parts: str) -> str:
    """A detail of several parts, without the empty ones."""
    return "; ".join(part for part in parts if part)
