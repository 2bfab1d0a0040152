"""Scores of a classification with their 95 % intervals."""

import math

import torch
from torch import Tensor

from wildfern.ssl.evaluation.evaluator import Score

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


def ranked_classes(scores: Tensor, classes: Tensor) -> Tensor:
    """The `RANKED` most likely classes int64[N, min(5, C)] by scores[N, C], best first; ties by class number."""
    return classes[scores.sort(dim=1, descending=True, stable=True).indices[:, :RANKED]]


def classification_scores(ranked: Tensor, labels: Tensor, classes: int, detail: str = "") -> list[Score]:
    """Accuracy, top-5 accuracy (for more than five `classes`) and balanced accuracy of int64[N, ≥ 1] guesses, best first.

    Balanced accuracy is the mean over the classes in `labels` of the share of their images that are right. Its interval
    combines their Wilson intervals by the method of variance estimates recovery (Zou & Donner, 2008).
    """
    hits = ranked == labels.to(ranked.device)[:, None]
    right = hits[:, 0]
    scores = [proportion("accuracy", int(right.sum()), len(labels), detail)]
    if classes > RANKED:
        scores.append(proportion("top5_accuracy", int(hits.any(1).sum()), len(labels), detail))
    found, index, counts = torch.unique(labels.to(ranked.device), return_inverse=True, return_counts=True)
    per_class = torch.zeros(len(found), dtype=torch.int64, device=index.device).index_add_(0, index, right.long())
    below = above = total = 0.0
    for hit, count in zip(per_class.tolist(), counts.tolist(), strict=True):
        low, high = wilson_interval(hit, count)
        total += hit / count
        below += (hit / count - low) ** 2
        above += (high - hit / count) ** 2
    n = len(found)
    balanced, how = total / n, f"95 % interval from the Wilson intervals of {n} classes"
    low, high = balanced - math.sqrt(below) / n, balanced + math.sqrt(above) / n
    scores.append(Score("balanced_accuracy", balanced, max(0.0, low), min(1.0, high), len(labels), joined(detail, how)))
    return scores


def joined(*parts: str) -> str:
    """A detail of several parts, without the empty ones."""
    return "; ".join(part for part in parts if part)
