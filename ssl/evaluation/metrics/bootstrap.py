"""Percentile bootstrap over test images (Efron & Tibshirani, 1993, chapter 13), paired for differences of two backbones."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.generators.counter_rng import key

DRAWS = 1000
LEVEL = 0.95
FEW_VALUES = 64  # of these, a resample is drawn as the number of images with each value
ELEMENTS = 2**24  # of one block of resampled images


def mean_interval(values: ArrayLike) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of the mean of float[n], one value for each test image; (None, None) for one, or if all are equal.

    `DRAWS` resamples of n images, which are a function of the values alone. Raises ValueError for values that are not finite.
    """
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ValueError(
            f"values are finite numbers [n], one for each test image; got {found.dtype}{list(found.shape)}"
        )
    if len(found) < 2 or (found == found[0]).all():  # all resamples are alike, which says nothing
        return None, None
    distinct, counts = np.unique(found, return_counts=True)
    if len(distinct) <= FEW_VALUES:
        drawn = _generator(len(found)).multinomial(len(found), counts / len(found), DRAWS)
        means = drawn @ distinct / len(found)
    else:
        means = np.concatenate([found[index].mean(1) for index in resamples(len(found))])
    return percentiles(means)


def difference_interval(values: ArrayLike, others: ArrayLike) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of mean(values) - mean(others), both float[n] of the same n test images in the same order.

    (0, 0) if they are equal on each image; otherwise as `mean_interval` of the differences. Raises ValueError for values of
    different images.
    """
    first, second = np.asarray(values, np.float64), np.asarray(others, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"a paired difference needs the same test images, got {len(first)} and {len(second)}")
    if len(first) > 1 and (first == second).all():
        return 0.0, 0.0
    return mean_interval(first - second)


def statistic_interval(
    statistic: Callable[[NDArray[np.int64]], float], n: int, draws: int = DRAWS
) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of a statistic of n test images, given the numbers int64[n] of the images of a resample.

    Resamples for which the statistic is NaN are left out. (None, None) for fewer than two images, or if all others are equal.
    """
    if n < 2:
        return None, None
    found = np.array([statistic(index) for block in resamples(n, draws) for index in block], np.float64)
    found = found[~np.isnan(found)]
    return percentiles(found) if len(found) and found.min() < found.max() else (None, None)


def resamples(n: int, draws: int = DRAWS) -> Iterator[NDArray[np.int64]]:
    """The numbers of the images of each resample, int64[≤ draws, n] at a time: a function of n and `draws` alone."""
    generator = _generator(n)
    block = max(1, ELEMENTS // n)
    for start in range(0, draws, block):
        yield generator.integers(n, size=(min(block, draws - start), n))


def percentiles(statistics: NDArray[np.float64]) -> tuple[float, float]:
    """The bounds of the central 95 % of the statistics of the resamples."""
    low, high = np.quantile(statistics, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def _generator(n: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=key("percentile bootstrap", n)))
