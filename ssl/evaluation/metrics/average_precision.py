"""Average precision of multi-label scores, with its bootstrap standard error over the test images."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.counter_rng import fold, integers, key
from wildfern.ssl.evaluation.evaluator import Score
from wildfern.ssl.evaluation.metrics.classification_scores import Z, joined
from wildfern.ssl.tracking.progress import SILENT, Progress

DRAWS = (
    500  # the relative error of a standard error from B draws is 1 / √(2B): 3 % (Efron & Tibshirani, 1993, section 6.4)
)
ELEMENTS = 2**24  # of one block of resampled counts


def average_precision(scores: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """Average precision of each class, float64[K], NaN for a class without positives; both arguments are [N, K].

    The sum over the distinct scores s, from the highest, of the precision among images of score ≥ s times the gain in recall:
    equal scores are one step, so a constant score has the share of positives (scikit-learn's `average_precision_score`).
    """
    scores, labels = _arrays(scores, labels)
    once = np.ones((len(scores), 1), np.int32)
    return np.concatenate([_Ranking(scores[:, k], labels[:, k]).precision(once) for k in range(labels.shape[1])])


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """The mean over the classes that have a positive (Everingham et al., 2010); ValueError if none has."""
    return _mean(average_precision(scores, labels))


def multi_label_scores(scores: Tensor, labels: Tensor, detail: str = "", progress: Progress = SILENT) -> list[Score]:
    """Mean average precision, and micro average precision over all pairs of image and class; arguments are [N, K].

    Their intervals are ± 1.96 standard deviations over 500 bootstrap resamples of the images, which are a function of N
    alone; a class without a positive in a resample is left out of its mean. Raises ValueError for labels without a
    single positive.
    """
    scores, labels = _arrays(scores, labels)
    n, classes = labels.shape
    present = [_Ranking(scores[:, k], labels[:, k]) for k in range(classes) if labels[:, k].any()]
    of_classes = f"mean over the {len(present)} of {classes} classes that test images have"
    pairs = [_Ranking(scores.ravel(), labels.ravel(), classes)]
    of_pairs = f"over all {n * classes:,} pairs of test image and class"
    return [
        _score("mean_average_precision", present, n, of_classes, detail, progress),
        _score("micro_average_precision", pairs, n, of_pairs, detail, progress),
    ]


def _score(metric: str, rankings: Sequence["_Ranking"], n: int, what: str, detail: str, progress: Progress) -> Score:
    value = _mean(np.concatenate([r.precision(np.ones((n, 1), np.int32)) for r in rankings] or [np.full(1, np.nan)]))
    if n < 2:
        return Score(metric, value, None, None, n, joined(detail, what, "no interval from one test image"))
    block = max(1, ELEMENTS // len(rankings[0]))
    draws: NDArray[np.float64] = np.empty(0)
    name = metric.replace("_", " ")
    for counts in resampled_counts(n, block):
        progress.count(len(draws), DRAWS, "bootstrap resamples", name)
        draws = np.append(draws, _mean_of_each_draw(np.stack([r.precision(counts) for r in rankings])))
    reach = Z * float(np.nanstd(draws, ddof=1))
    how = f"95 % interval from {DRAWS} bootstrap resamples of {n} test images"
    return Score(metric, value, max(0.0, value - reach), min(1.0, value + reach), n, joined(detail, what, how))


def resampled_counts(n: int, block: int) -> Iterator[NDArray[np.int32]]:
    """How often each of n images is in each of `DRAWS` resamples of n images: int32[n, ≤ block] at a time."""
    keys = fold(np.uint64(key("bootstrap of test images", n)), np.arange(DRAWS))
    for start in range(0, DRAWS, block):
        counts = [np.bincount(integers(one, n, n).ravel(), minlength=n) for one in keys[start : start + block]]
        yield np.stack(counts, axis=1).astype(np.int32)


class _Ranking:
    """The order of the entries by score; the entries belong to images, `per_image` consecutive ones to each."""

    def __init__(self, scores: NDArray[np.floating], labels: NDArray[np.bool_], per_image: int = 1) -> None:
        order = np.argsort(-scores, kind="stable")
        ordered, hits = scores[order], labels[order]
        last = np.r_[np.flatnonzero(ordered[1:] != ordered[:-1]), len(order) - 1]  # of each group of equal scores
        positives = np.flatnonzero(hits)
        ends = last[np.searchsorted(last, positives)]
        self._images, self._ends = order // per_image, ends
        self._positives = positives
        self._found = np.searchsorted(positives, ends, side="right") - 1  # the last positive of the same group

    def __len__(self) -> int:
        return len(self._images)

    def precision(self, counts: NDArray[np.int32]) -> NDArray[np.float64]:
        """Average precision float64[B] where image i is counted counts[i, b] times; NaN where no positive is."""
        if not len(self._positives):
            return np.full(counts.shape[1], np.nan)
        ordered = counts[self._images]
        right = ordered[self._positives]
        found, total = right.cumsum(0), ordered.cumsum(0)[self._ends]
        precision = found[self._found] / np.maximum(total, 1)
        with np.errstate(invalid="ignore"):
            return (right * precision).sum(0) / found[-1]


def _arrays(scores: Tensor, labels: Tensor) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    if scores.shape != labels.shape or labels.ndim != 2:
        raise ValueError(f"scores and multi-hot labels are [N, K], got {list(scores.shape)} and {list(labels.shape)}")
    if torch.isnan(scores).any():
        raise ValueError("the scores of the test images contain NaN")
    return scores.cpu().numpy(), labels.cpu().numpy().astype(bool)


def _mean(precisions: NDArray[np.float64]) -> float:
    known = precisions[~np.isnan(precisions)]
    if not len(known):
        raise ValueError("no test image has any of the classes, so there is no average precision")
    return float(known.mean())


def _mean_of_each_draw(precisions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the classes that have a positive in the resample: float64[B] of float64[K, B]; NaN where none has."""
    known = ~np.isnan(precisions)
    with np.errstate(invalid="ignore"):
        return np.where(known, precisions, 0.0).sum(0) / known.sum(0)
