"""Which classes are taken for which: counts of (true, predicted) pairs, and the most frequent confusions."""

from dataclasses import dataclass

import torch

from wildfern.ssl.evaluation.evaluator import Predictions
from wildfern.ssl.evaluation.metrics.classification_scores import wilson_interval


@dataclass(frozen=True)
class Confusion:
    """`count` of the `n` test images of class `true` have `predicted` as first guess; both are labels."""

    true: int
    predicted: int
    count: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of count / n."""
        return wilson_interval(self.count, self.n)


def confusion_counts(predictions: Predictions) -> dict[tuple[int, int], int]:
    """Test images by (true, predicted) label, in ascending order, without pairs that do not occur; -1: no guess."""
    both = torch.stack([predictions.labels.cpu(), predictions.ranked[:, 0].cpu()], 1)
    pairs, counts = torch.unique(both, dim=0, return_counts=True)
    return {(true, guess): n for (true, guess), n in zip(pairs.tolist(), counts.tolist(), strict=True)}


def top_confusions(counts: dict[tuple[int, int], int], most: int = 10) -> list[Confusion]:
    """The `most` frequent pairs of two classes, of pairs with the same count those with the larger share of the class first.

    Images without a guess are none. Raises ValueError for `most` below 1.
    """
    if most < 1:
        raise ValueError(f"most is a number of confusions of at least 1, got {most}")
    n: dict[int, int] = {}
    for (true, _), count in counts.items():
        n[true] = n.get(true, 0) + count
    wrong = [Confusion(true, guess, count, n[true]) for (true, guess), count in counts.items() if -1 != guess != true]
    return sorted(wrong, key=lambda one: (-one.count, one.n, one.true, one.predicted))[:most]
