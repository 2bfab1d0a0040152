"""Hierarchical k-means, and samples that are balanced over its clusters (Vo et al., 2024, "Automatic Data Curation").

k-means alone places most centroids where most images are. Each level here clusters the centroids of the level below, and is
clustered again on the images closest to its centroids ("resampling"), which are spread more evenly than the images are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.ssl.curation.similar_pairs import finite_rows
from wildfern.ssl.data.base import DataError

BLOCK = 2**24  # distances in memory at a time
ITERATIONS = 50

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Level:
    """Clusters of n items: images, or the centroids of the level below.

    - centroids: float[k, D]. of_item: int64[n], the cluster whose centroid is the nearest. distance: float[n], Euclidean, to it.

    A cluster is empty if there are fewer distinct items than clusters (or, rarely, if the iterations ended early).
    """

    centroids: Tensor
    of_item: Tensor
    distance: Tensor


def k_means(features: Tensor, k: int, *, seed: int, iterations: int = ITERATIONS) -> Level:
    """k clusters of float[N, D] by Euclidean distance, on the device of the features, of which a copy is made.

    Greedy k-means++ (Arthur & Vassilvitskii, 2007, with 2 + ln k candidates for each centroid), then at most `iterations` of
    Lloyd's algorithm; an empty cluster starts again at the row that is farthest from its centroid. A function of features and
    seed, on a GPU up to the order of sums. Raises DataError for fewer rows than clusters, and for features that are not finite.
    """
    return _clustered(finite_rows(features), k, _generator(seed), iterations)


def hierarchical_k_means(
    features: Tensor,
    sizes: Sequence[int],
    *,
    seed: int,
    resamples: int = 10,
    sample_sizes: Sequence[int] | None = None,
    iterations: int = ITERATIONS,
) -> list[Level]:
    """Levels of sizes[0] > sizes[1] > … clusters, the first one of features float[N, D], each next one of the centroids below.

    - resamples: how often each level is clustered again on the items closest to its centroids (section 3.3 of the paper).
    - sample_sizes: how many of each cluster, for each level; below 2: no resampling. None: half of the mean cluster.

    The paper's sizes for 743 million images: 10 million, 500,000, 50,000, 10,000. Raises DataError as `k_means`, and for sizes
    that do not decrease.
    """
    rows = finite_rows(features)
    counts = [len(rows), *sizes]
    if not sizes or sizes[-1] < 1 or any(below <= above for below, above in pairwise(counts)):
        raise DataError(
            f"sizes must decrease from below the number of images, {len(rows)}, to 1 or more, got {list(sizes)}"
        )
    if sample_sizes is None:
        sample_sizes = [below // (2 * above) for below, above in pairwise(counts)]
    if len(sample_sizes) != len(sizes):
        raise DataError(f"sample_sizes must be one for each of {len(sizes)} levels, got {list(sample_sizes)}")
    generator = _generator(seed)
    levels = []
    for k, of_each in zip(sizes, sample_sizes, strict=True):
        level = _clustered(rows, k, generator, iterations)
        for _ in range(resamples if of_each > 1 else 0):
            closest = rows[_rank_in_cluster(level.of_item, level.distance) < of_each]
            if len(closest) < k:  # of empty clusters
                break
            centroids = _clustered(closest, k, generator, iterations).centroids
            level = Level(centroids, *nearest_centroid(rows, centroids))
        levels.append(level)
        rows = level.centroids
    return levels


def nearest_centroid(features: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of centroids float[k, D] for each row of float[N, D], int64[N], and its Euclidean distance, float[N]."""
    origin = centroids.mean(0)  # distances do not change, and the products below lose less in rounding
    moved = centroids - origin
    squares = moved.square().sum(1)
    of_item, distance = [], []
    for block in features.split(max(1, BLOCK // len(centroids))):
        block = block - origin
        least, nearest = torch.addmm(squares, block, moved.T, alpha=-2).min(1)
        of_item.append(nearest)
        distance.append((least + block.square().sum(1)).clamp(min=0).sqrt())
    return torch.cat(of_item), torch.cat(distance)


def _generator(seed: int) -> torch.Generator:
    """On the CPU, so that all devices get the same numbers."""
    return torch.Generator().manual_seed(seed)


def _clustered(rows: Tensor, k: int, generator: torch.Generator, iterations: int) -> Level:
    if not 1 <= k <= len(rows):
        raise DataError(f"{k} clusters need at least one each, and at least as many images, got {len(rows)}")
    centroids = _k_means_plus_plus(rows, k, generator)
    of_item, distance = nearest_centroid(rows, centroids)
    for _ in range(iterations):
        centroids = _means(rows, of_item, distance, centroids)
        before = of_item
        of_item, distance = nearest_centroid(rows, centroids)
        if torch.equal(of_item, before):
            break
    return Level(centroids, of_item, distance)


def _means(rows: Tensor, of_item: Tensor, distance: Tensor, centroids: Tensor) -> Tensor:
    """The mean of each cluster; of empty ones, rows that are farthest from their centroids."""
    k, precise = len(centroids), _sum_type(rows)
    sums = torch.zeros(k, rows.shape[1], dtype=precise, device=rows.device)
    for block, clusters in zip(rows.split(2**16), of_item.split(2**16), strict=True):
        sums.index_add_(0, clusters, block.to(precise))
    counts = of_item.bincount(minlength=k)
    means = (sums / counts.clamp(min=1)[:, None]).to(rows.dtype)
    empty = (counts == 0).nonzero()[:, 0]
    means[empty] = rows[distance.topk(len(empty)).indices]
    return means


def _k_means_plus_plus(rows: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k rows: each the candidate, of those drawn by squared distance to the rows before, that leaves the least sum of them."""
    candidates = 2 + int(math.log(k))
    centered = rows - rows.mean(0)
    squares = centered.square().sum(1)
    chosen = torch.randint(len(rows), (1,), generator=generator).to(rows.device)
    nearest = _squared_distances(centered, squares, chosen)[:, 0]
    while len(chosen) < k:
        cumulative = nearest.to(_sum_type(rows)).cumsum(0)
        draws = torch.rand(candidates, generator=generator, dtype=torch.float64)
        if cumulative[-1] > 0:
            draws = draws.to(cumulative) * cumulative[-1]
            drawn = torch.searchsorted(cumulative, draws, right=True).clamp(max=len(rows) - 1)
        else:  # every row is one of the centroids already: these clusters stay empty
            drawn = (draws * len(rows)).long().to(rows.device)
        distances = torch.minimum(nearest[:, None], _squared_distances(centered, squares, drawn))
        best = distances.sum(0).argmin()
        nearest = distances[:, best]
        chosen = torch.cat([chosen, drawn[best, None]])
    return rows[chosen]


def _squared_distances(rows: Tensor, squares: Tensor, places: Tensor) -> Tensor:
    """Between all rows and those at `places`, float[N, P]; 0 where they are less than the rounding, as between equal rows."""
    scale = squares[:, None] + squares[places]
    distances = scale - 2 * rows @ rows[places].T
    return torch.where(distances > 8 * torch.finfo(rows.dtype).eps * scale, distances, 0)


def _sum_type(rows: Tensor) -> torch.dtype:
    return torch.float32 if rows.device.type == "mps" else torch.float64  # which MPS does not have


def _rank_in_cluster(of_item: Tensor, value: Tensor) -> Tensor:
    """How many items of an item's cluster come before it by `value`, int64[n]."""
    order = value.argsort(stable=True)
    order = order[of_item[order].argsort(stable=True)]
    counts = of_item.bincount()
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(of_item)
    rank[order] = torch.arange(len(order), device=order.device) - starts[of_item[order]]
    return rank


def balanced_sample(
    levels: Sequence[Level], target: int, *, seed: int, order: Literal["random", "closest"] = "random"
) -> Tensor:
    """`target` items, sorted, int64[target], that are spread evenly over the clusters of the levels.

    From the top: the clusters of a level share their parent's number so that each gets min(x, its images), with the x for which
    the sum is right. The remainder, less than one for each cluster, goes to random ones. In a cluster of the first level images
    are drawn, or are those closest to the centroid. Raises DataError for more than all images.
    """
    if order not in ("random", "closest"):
        raise DataError(f'order must be "random" or "closest", got {order!r}')
    images = len(levels[0].of_item)
    if not 1 <= target <= images:
        raise DataError(f"target must be in 1 … {images}, the number of images, got {target}")
    rng = np.random.Generator(np.random.Philox(seed))
    sizes = [_counts(levels[0])]
    for level in levels[1:]:
        sizes.append(_counts(level, sizes[-1]))
    shares = balanced_shares(sizes[-1], np.zeros(len(sizes[-1]), np.int64), np.array([target]), rng)
    for level, size in zip(levels[:0:-1], sizes[-2::-1], strict=True):
        shares = balanced_shares(size, level.of_item.numpy(force=True), shares, rng)
    first = levels[0]
    value = torch.from_numpy(rng.permutation(images)).to(first.of_item.device) if order == "random" else first.distance
    share = torch.from_numpy(shares).to(first.of_item.device)
    return (_rank_in_cluster(first.of_item, value) < share[first.of_item]).nonzero()[:, 0]


def balanced_shares(sizes: Index, parent: Index, targets: Index, rng: np.random.Generator) -> Index:
    """min(x, size) of each cluster, int64[k], plus the remainder: for each parent p they sum to targets[p].

    sizes int64[k], parent int64[k] in [0, P), targets int64[P], each at most the sum of the parent's sizes.
    """
    low, high = np.zeros_like(targets), np.full_like(targets, sizes.max(initial=0))
    while (low < high).any():  # the largest x whose sum is not above the target
        middle = (low + high + 1) // 2
        fits = _sums(np.minimum(middle[parent], sizes), parent, len(targets)) <= targets
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    shares = np.minimum(low[parent], sizes)
    remainder = targets - _sums(shares, parent, len(targets))
    shuffled = rng.permutation(np.flatnonzero(sizes > shares))
    shuffled = shuffled[np.argsort(parent[shuffled], kind="stable")]
    of_parent = np.bincount(parent[shuffled], minlength=len(targets))
    rank = np.arange(len(shuffled)) - (np.cumsum(of_parent) - of_parent)[parent[shuffled]]
    shares[shuffled[rank < remainder[parent[shuffled]]]] += 1
    return shares


def _sums(values: Index, parent: Index, parents: int) -> Index:
    return np.bincount(parent, weights=values, minlength=parents).astype(np.int64)  # float64: exact up to 2**53


def _counts(level: Level, below: Index | None = None) -> Index:
    """Images in each cluster, given those in each item."""
    of_item = level.of_item.numpy(force=True)
    return _sums(np.ones(len(of_item), np.int64) if below is None else below, of_item, len(level.centroids))
