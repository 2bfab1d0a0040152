"""How much accuracy differs between parts of the test images, such as classes or groups: worst, gap and standard deviation.

By chance the lowest of many observed accuracies is too low, and their spread too large. A bootstrap adds the same error
once more: of ten equal classes its interval of the worst one nearly never has the true value. These intervals allow for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, chdtr, chndtrinc

from wildfern.ssl.evaluation.evaluator import Score
from wildfern.ssl.evaluation.metrics.bootstrap import LEVEL
from wildfern.ssl.evaluation.metrics.classification_scores import joined, wilson_interval


@dataclass(frozen=True)
class PartAccuracy:
    """A part of the test images: the first guess is right for `right` of its `n` images, n ≥ 1."""

    name: str
    n: int
    right: int

    @property
    def accuracy(self) -> float:
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the accuracy."""
        return wilson_interval(self.right, self.n)


def worst_accuracy(metric: str, parts: Sequence[PartAccuracy], kind: str, detail: str = "") -> Score:
    """The lowest accuracy of disjoint parts; `kind` is their word in the plural, for the detail.

    The interval is from the lowest lower to the lowest upper bound of exact intervals (Clopper & Pearson, 1934) that hold for
    all parts at once (Bonferroni): it has the lowest true accuracy with at least 95 %.
    """
    right, n, accuracy = _arrays(parts)
    low, high = _exact_bounds(right, n, (1 - LEVEL) / len(parts))
    worst = parts[int(accuracy.argmin())]
    chosen = f"lowest of {len(parts)} {kind}: {worst.name}, {worst.right} of {worst.n} right"
    how = f"95 % interval from exact intervals of all {kind} at once, as the lowest is chosen on test"
    detail = joined(detail, chosen, how)
    return Score(metric, worst.accuracy, float(low.min()), float(high.min()), int(n.sum()), detail)


def accuracy_gap(metric: str, parts: Sequence[PartAccuracy], kind: str, detail: str = "") -> Score:
    """The highest accuracy of disjoint parts minus the lowest one; otherwise as `worst_accuracy`.

    The bounds are the largest ones of the differences of all pairs of parts, which hold at once (Bonferroni); each combines two
    exact intervals by the method of variance estimates recovery (Zou & Donner, 2008).
    """
    right, n, accuracy = _arrays(parts)
    low, high = _exact_bounds(right, n, (1 - LEVEL) / math.comb(len(parts), 2))
    least = most = 0.0
    for one in range(len(parts)):
        difference = accuracy[one] - accuracy
        below = np.hypot(accuracy[one] - low[one], high - accuracy)
        above = np.hypot(high[one] - accuracy[one], accuracy - low)
        others = np.arange(len(parts)) != one
        least = max(least, float((difference - below).max(where=others, initial=0.0)))
        most = max(most, float((difference + above).max(where=others, initial=0.0)))
    best, worst = parts[int(accuracy.argmax())], parts[int(accuracy.argmin())]
    gap = best.accuracy - worst.accuracy
    chosen = (
        f"of {len(parts)} {kind}: {best.name} {100 * best.accuracy:.1f} %, {worst.name} {100 * worst.accuracy:.1f} %"
    )
    how = "95 % interval from exact intervals of all pairs at once, as the pair is chosen on test"
    return Score(metric, gap, least, min(1.0, most), int(n.sum()), joined(detail, chosen, how))


def accuracy_std(metric: str, parts: Sequence[PartAccuracy], kind: str, detail: str = "") -> Score:
    """The standard deviation of the accuracies of K disjoint parts, dividing by K; otherwise as `worst_accuracy`.

    K variance / (mean sampling variance) is about noncentral χ² with K - 1 degrees of freedom, whose noncentrality is the same
    ratio for the true accuracies (Steiger, 2004): the interval is of their standard deviation, without the sampling noise that
    is in the value. It is widened to hold the value, and up to the bound that chance alone would give on average.
    """
    right, n, accuracy = _arrays(parts)
    smoothed = (right + 0.5) / (n + 1)  # so that a part with all images right has a variance
    noise = float((smoothed * (1 - smoothed) / n).mean())
    value, k = float(accuracy.std()), len(parts)

    def true_std(ratio: float, share: float) -> float:
        """The standard deviation for which a share of the test sets would show a smaller ratio; 0 if there is none."""
        noncentrality = chndtrinc(ratio, k - 1, share) if chdtr(k - 1, ratio) > share else 0.0
        return math.sqrt(noncentrality * noise / k)

    seen = k * value**2 / noise
    low, high = min(value, true_std(seen, (1 + LEVEL) / 2)), max(value, true_std(max(seen, k - 1), (1 - LEVEL) / 2))
    alone = math.sqrt(noise * (k - 1) / k)
    chance = f"of {k} {kind}, {100 * alone:.1f} points if all were equally accurate"
    how = "95 % interval by a noncentral χ² distribution, of the accuracies without sampling noise"
    return Score(metric, value, low, high, int(n.sum()), joined(detail, chance, how))


def _arrays(parts: Sequence[PartAccuracy]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Images that are right, all images, and accuracies, each [K]."""
    if len(parts) < 2:
        raise ValueError(f"accuracies are compared between two parts of the test images or more, got {len(parts)}")
    right, n = np.array([(part.right, part.n) for part in parts], np.int64).T
    return right, n, right / n


def _exact_bounds(
    right: NDArray[np.int64], n: NDArray[np.int64], error: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact lower and upper bounds of proportions, each missed with a probability of at most error / 2."""
    low = np.where(right == 0, 0.0, betaincinv(np.maximum(right, 1), n - right + 1, error / 2))
    high = np.where(right == n, 1.0, betaincinv(right + 1, np.maximum(n - right, 1), 1 - error / 2))
    return low, high
