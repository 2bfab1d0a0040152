"""Semi-supervised k-means, and the number of classes that clusters labeled images best (Vaze et al., CVPR 2022)."""

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.ssl.curation.hierarchical_kmeans import k_means, nearest_centroid
from wildfern.ssl.evaluation.protocols.clustering import matched_images
from wildfern.ssl.tracking.progress import SILENT, Progress

STARTS, ITERATIONS = 10, 100  # the public code of Vaze et al.


def semi_supervised_k_means(
    rows: Tensor, given: Tensor, k: int, seed: int, starts: int = STARTS
) -> tuple[Tensor, Tensor]:
    """Centroids float[k, D] and clusters int64[N] of float[N, D] (Vaze et al.).

    `given` int64[N]: the cluster of a labeled image, which it keeps, numbered from 0; or -1. The first centroids are the means
    of the labeled images, the others start by k-means++ among the unlabeled ones, of which there is at least one; of `starts`,
    the one with the smallest inertia is returned.
    """
    shown, known = given >= 0, int(given.max()) + 1
    free = rows[~shown]
    means = cluster_means(rows[shown], given[shown], rows.new_zeros(known, rows.shape[1]))
    best, least = None, math.inf
    for start in range(starts):
        generator = torch.Generator().manual_seed(key("semi-supervised k-means", seed, start))
        centroids = means if known else free[torch.randint(len(free), (1,), generator=generator).to(free.device)]
        distance = nearest_centroid(free, centroids)[1]
        while len(centroids) < k:
            cumulative = distance.square().cumsum(0)
            draw = torch.rand(1, generator=generator).to(cumulative) * cumulative[-1]
            drawn = free[torch.searchsorted(cumulative, draw, right=True).clamp(max=len(free) - 1)]
            centroids = torch.cat([centroids, drawn])
            distance = torch.minimum(distance, nearest_centroid(free, drawn)[1])
        clusters, before = given.clone(), None
        for _ in range(ITERATIONS):
            clusters[~shown] = nearest_centroid(free, centroids)[0]
            if before is not None and torch.equal(clusters, before):
                break
            centroids, before = cluster_means(rows, clusters, centroids), clusters.clone()
        inertia = (rows - centroids[clusters]).square().sum().item()
        if best is None or inertia < least:
            best, least = (centroids, clusters), inertia
    assert best is not None
    return best


def cluster_means(rows: Tensor, clusters: Tensor, otherwise: Tensor) -> Tensor:
    """The mean of each cluster, or the row of `otherwise` float[k, D] for an empty one."""
    counts = clusters.bincount(minlength=len(otherwise))[:, None]
    sums = torch.zeros_like(otherwise).index_add_(0, clusters, rows)
    return torch.where(counts > 0, sums / counts.clamp(min=1), otherwise)


def count_by_labeled_accuracy(rows: Tensor, given: Tensor, most: int, seed: int, progress: Progress = SILENT) -> int:
    """The number of classes of float[N, D], from that of the known ones up to `most` (Vaze et al.).

    The number of clusters of plain k-means for which the accuracy of the labeled images under their best matching is highest,
    searched by Brent's method.
    """
    shown, tried = given >= 0, 0

    def errors(k: float) -> float:
        nonlocal tried
        tried += 1
        progress.detail(f"{round(k)} clusters, try {tried}")
        clusters = k_means(rows, round(k), seed=key("number of classes", seed)).of_item
        return -float(matched_images(clusters[shown].numpy(force=True), given[shown].numpy(force=True)).mean())

    known = int(given.max()) + 1
    return round(minimize_scalar(errors, bounds=(known, most), method="bounded", options={"xatol": 1}).x)
