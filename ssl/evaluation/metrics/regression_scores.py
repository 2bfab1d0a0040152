"""Scores of predicted numbers with their 95 % intervals: R², mean absolute error, root mean squared error, Spearman's ρ.

Intervals are percentiles of bootstrap resamples of the test images (`bootstrap`). A resample is held as the number of times
that it has each image, so that its ranks are found without sorting it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from wildfern.ssl.evaluation.evaluator import Score
from wildfern.ssl.evaluation.metrics.bootstrap import DRAWS, percentiles, resamples
from wildfern.ssl.evaluation.metrics.classification_scores import joined, mean_score

NAMED = 10  # targets with scores of their own, at most
_ELEMENTS = 2**20  # of the counts of resamples that are computed with at a time

Array = NDArray[np.float64]


def regression_scores(
    y: Array,
    predictions: Array,
    names: Sequence[str],
    spread: Array,
    details: Sequence[str],
    detail: str = "",
) -> list[Score]:
    """R², mean absolute error, root mean squared error and Spearman's rank correlation of float64[N, P]; R² first.

    Of one target these are in its unit. Of several they are means over the targets, with errors divided by the target's
    `spread` float64[P], and up to ten targets have their own scores after these, named `r2 (NAME)`. `detail` is of all, `details`
    of each target. R² is 1 - Σ (y - ŷ)² / Σ (y - ȳ)², ȳ the mean of the test images. ρ of predictions that are all equal counts
    as 0. Raises ValueError for a target that is the same for all test images, as R² is not defined then.
    """
    for name, column in zip(names, y.T, strict=True):
        if np.ptp(column) == 0:
            raise ValueError(f"all {len(y)} test images have the same {name}, so that R² is not defined")
    ranks = [(_Ranks(true), _Ranks(guess)) for true, guess in zip(y.T, predictions.T, strict=True)]
    values = _statistics(np.ones((1, len(y))), y, predictions, ranks)
    draws = np.concatenate([_statistics(counts, y, predictions, ranks) for counts in _resampled(len(y))], axis=2)
    if len(names) == 1:
        return _scores(y, predictions, values, draws, "", joined(detail, *details))
    unit = np.stack([np.ones_like(spread), spread, np.ones_like(spread)])[:, :, None]
    words = f"mean over {len(names)} targets; errors in standard deviations of each on train"
    scores = _scores(y / spread, predictions / spread, values / unit, draws / unit, "", joined(detail, words))
    for number, name in enumerate(names if len(names) <= NAMED else ()):
        one = slice(number, number + 1)
        given = y[:, one], predictions[:, one], values[:, one], draws[:, one]
        scores += _scores(*given, f" ({name})", joined(detail, details[number]))
    return scores


def _scores(y: Array, predictions: Array, values: Array, draws: Array, suffix: str, detail: str) -> list[Score]:
    """The four scores, each a mean over the targets, of `values` float64[3, P, 1] and `draws` float64[3, P, b]."""
    n, errors = len(y), y - predictions
    r2, rmse, rho = values.mean(1)[:, 0].tolist()
    of_r2, of_rmse, of_rho = draws.mean(1)
    # What an image contributes to R², to first order: the mean is R², and varies over resamples as R² does.
    deviation = np.square(y - y.mean(0))
    variance = deviation.mean(0)
    residual = np.square(errors)
    linear = r2 + ((residual.mean(0) / variance * deviation - residual) / variance).mean(1)
    low, high, words = _interval(of_r2, n)
    words = joined(detail, words, "differences to first order")
    found = [Score(f"r2{suffix}", r2, low, high, n, words, False, linear.astype(np.float32))]
    absolute = torch.from_numpy(np.abs(errors).mean(1))
    found.append(mean_score(f"mean_absolute_error{suffix}", absolute, detail, share=False))
    low, high, words = _interval(of_rmse, n)
    found.append(Score(f"root_mean_squared_error{suffix}", rmse, low, high, n, joined(detail, words), False))
    equal = "predictions that are all equal count as 0" if (np.ptp(predictions, axis=0) == 0).any() else ""
    low, high, words = _interval(of_rho, n)
    found.append(Score(f"spearman{suffix}", rho, low, high, n, joined(detail, equal, words), False))
    return found


def _interval(draws: Array, n: int) -> tuple[float | None, float | None, str]:
    """The interval, without the resamples for which the statistic is NaN, and words for it."""
    kept = draws[~np.isnan(draws)]
    left_out = f", without {len(draws) - len(kept)} of one value" if len(kept) < len(draws) else ""
    return *percentiles(kept), f"95 % interval from {DRAWS} bootstrap resamples of {n} test images{left_out}"


def _resampled(n: int) -> Iterator[Array]:
    """How often each resample has each image, float64[b, N] at a time."""
    for block in resamples(n):
        for part in np.array_split(block, min(len(block), -(-block.size // _ELEMENTS))):
            places = part + n * np.arange(len(part))[:, None]
            yield np.bincount(places.ravel(), minlength=part.size).reshape(part.shape).astype(np.float64)


class _Ranks:
    """Ranks of float64[N] in resamples, the mean rank for equals."""

    def __init__(self, values: Array) -> None:
        self.order = values.argsort(kind="stable")
        ordered = values[self.order]
        new = np.r_[True, ordered[1:] != ordered[:-1]]
        self.starts = np.flatnonzero(new)
        self.group = np.empty(len(values), np.int64)
        self.group[self.order] = new.cumsum() - 1

    def __call__(self, counts: Array) -> Array:
        """Ranks around their mean, float64[b, N], of resamples with `counts` float64[b, N]."""
        equals = np.add.reduceat(counts[:, self.order], self.starts, axis=1)
        return (equals.cumsum(1) - equals / 2 - counts.shape[1] / 2)[:, self.group]


def _statistics(counts: Array, y: Array, predictions: Array, ranks: Sequence[tuple[_Ranks, _Ranks]]) -> Array:
    """R², RMSE and ρ of each target, float64[3, P, b], in resamples with `counts` float64[b, N]; NaN where y has one value."""
    n = counts.shape[1]
    y, squares = y - y.mean(0), np.square(y - predictions)
    found = []
    for number, (true, guessed) in enumerate(ranks):
        a, b = true(counts), guessed(counts)
        of_a, of_b, both = ((counts * part).sum(1) for part in (a * a, b * b, a * b))
        of_a[of_a == 0] = np.nan
        rho = both / np.sqrt(of_a * np.where(of_b > 0, of_b, 1))
        mse = counts @ squares[:, number] / n
        variance = counts @ np.square(y[:, number]) / n - np.square(counts @ y[:, number] / n)
        found.append((1 - mse / np.where(of_a > 0, variance, np.nan), np.sqrt(mse), rho))
    return np.array(found).swapaxes(0, 1)
