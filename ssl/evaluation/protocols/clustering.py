"""Clustering: k-means of frozen features without labels, and how far its clusters are the classes.

Accuracy under the best one-to-one matching of clusters and classes (Van Gansbeke et al., ECCV 2020, "SCAN", section 3),
normalized mutual information (DeepCluster: Caron et al., ECCV 2018, section 4.1) and adjusted Rand index (Hubert & Arabie, 1985).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import entr
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.registry import register
from wildfern.ssl.curation.hierarchical_kmeans import k_means, nearest_centroid
from wildfern.ssl.evaluation.evaluator import Evaluator, Features, HeldOut, Score
from wildfern.ssl.evaluation.metrics.bootstrap import DRAWS, ELEMENTS
from wildfern.ssl.evaluation.metrics.classification_scores import Z, joined, proportion
from wildfern.ssl.evaluation.unit_rows import unit_rows
from wildfern.ssl.tracking.progress import SILENT, Progress

Split = Literal["train", "test"]
Index = NDArray[np.int64]
Floats = NDArray[np.float64]
ITERATIONS = 300  # of Lloyd's algorithm at most; scikit-learn's default


def best_centroids(rows: Tensor, k: int, starts: int, seed: int, progress: Progress = SILENT) -> Tensor:
    """Centroids float[k, D] of k-means of float[N, D]: of `starts` starts, those with the smallest inertia on these rows.

    Each start is greedy k-means++ and Lloyd's algorithm (`curation.hierarchical_kmeans.k_means`). Raises ValueError for fewer
    rows than clusters.
    """
    best, least = None, np.inf
    for start in range(starts):
        progress.count(start, starts, "starts of k-means")
        level = k_means(rows, k, seed=key("clustering", seed, start), iterations=ITERATIONS)
        inertia = level.distance.square().sum().item()
        if best is None or inertia < least:
            best, least = level.centroids, inertia
    assert best is not None
    return best


def matched_images(clusters: Index, labels: Index) -> NDArray[np.bool_]:
    """Whether the cluster of each image is matched with its class, bool[n].

    Of the one-to-one matchings of clusters and classes, the one that is right for most images (Kuhn, 1955). Clusters in excess
    of the classes are matched with none.
    """
    of_cluster, of_class = (np.unique(values, return_inverse=True)[1] for values in (clusters, labels))
    table = np.zeros((of_cluster.max() + 1, of_class.max() + 1), np.int64)
    np.add.at(table, (of_cluster, of_class), 1)
    matched = np.full(len(table), -1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    matched[rows] = columns
    return matched[of_cluster] == of_class


def normalized_mutual_information(pairs: Floats, of_cluster: Index, of_class: Index) -> Floats:
    """Mutual information over the arithmetic mean of the two entropies, float64[B] in [0, 1], of B clusterings of n images.

    `pairs` [B, P]: the images of each pair of cluster and class; `of_cluster` and `of_class` int64[P] are those of the pair.
    1 if there is but one cluster and one class.
    """
    n = pairs.sum(1, keepdims=True)
    joint = entr(pairs / n).sum(1)
    first, second = (entr(_sums(pairs, group) / n).sum(1) for group in (of_cluster, of_class))
    mean = (first + second) / 2
    information = np.clip(first + second - joint, 0, mean)
    return np.divide(information, mean, out=np.ones_like(mean), where=mean > 0)


def adjusted_rand_index(pairs: Floats, of_cluster: Index, of_class: Index) -> Floats:
    """Hubert & Arabie (1985), eq. 5, float64[B] in [-0.5, 1], with arguments as `normalized_mutual_information`.

    0 is expected of random clusters of these sizes. 1 if clusters and classes are both a single one, or both single images.
    """
    together, first, second, whole = (
        (counts * (counts - 1) / 2).sum(1)
        for counts in (pairs, _sums(pairs, of_cluster), _sums(pairs, of_class), pairs.sum(1, keepdims=True))
    )
    expected, most = first * second / np.maximum(whole, 1), (first + second) / 2
    return np.divide(together - expected, most - expected, out=np.ones_like(most), where=most > expected)


def _sums(pairs: Floats, group: Index) -> Floats:
    """The images of each group that occurs, float64[B, G]."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.add.reduceat(pairs[:, order], starts, axis=1)


def agreement_scores(clusters: Index, labels: Index, detail: str = "") -> list[Score]:
    """Normalized mutual information and adjusted Rand index of the clusters int64[n] and labels int64[n] of n test images.

    The intervals are ± 1.96 standard deviations over resampled test images. Percentiles would not do: repeated images make
    clusters and classes agree more, so with many clusters most resamples have a higher mutual information than the test images.
    """
    of_cluster, of_class = (np.unique(values, return_inverse=True)[1] for values in (clusters, labels))
    cells, counts = np.unique(np.stack([of_cluster, of_class]), axis=1, return_counts=True)
    n = len(labels)
    how = "no interval from one test image"
    if n > 1:
        how = f"95 % interval: ± 1.96 standard deviations over {DRAWS} bootstrap resamples of {n} test images"
    scores = []
    for statistic, least in ((normalized_mutual_information, 0.0), (adjusted_rand_index, -0.5)):
        value = statistic(counts[None].astype(np.float64), *cells).item()
        low = high = None
        if n > 1:
            reach = Z * _deviation(statistic, counts, cells)
            low, high = max(least, value - reach), min(1.0, value + reach)
        metric = statistic.__name__
        scores.append(Score(metric, value, low, high, n, joined(detail, how), share=least == 0))
    return scores


def _deviation(statistic: Callable[[Floats, Index, Index], Floats], counts: Index, cells: Index) -> float:
    """Standard deviation over resamples of the images; only the number of each pair is drawn, as images of a pair are alike."""
    n = int(counts.sum())
    generator = np.random.Generator(np.random.Philox(key=key("clustering bootstrap", n)))
    block = max(1, ELEMENTS // len(counts))
    sizes = [min(block, DRAWS - start) for start in range(0, DRAWS, block)]
    drawn = (generator.multinomial(n, counts / n, size).astype(np.float64) for size in sizes)
    return float(np.concatenate([statistic(pairs, *cells) for pairs in drawn]).std(ddof=1))


@register("evaluator", "clustering")
class Clustering(Evaluator):
    """k-means clusters: accuracy under the best matching with classes, normalized mutual information, adjusted Rand index.

    L2-normalized features, as many clusters as train has classes, or `clusters`; of `seeds` starts the one with the smallest
    inertia. `fit_on` "train": centroids of train, without its labels, and each test image belongs to the nearest. "test": k-means
    of the test images themselves. Test labels match clusters with classes, so accuracy is that of no usable classifier; with
    more clusters than classes it is at most that of the largest cluster of each class.
    """

    def __init__(self, *, clusters: int | None = None, fit_on: Split = "train", seeds: int = 5, seed: int = 0) -> None:
        if clusters is not None and clusters < 2:
            raise ValueError(f"clusters is at least 2, or null for as many as train has classes; got {clusters}")
        if fit_on not in ("train", "test"):
            raise ValueError(f'fit_on is "train" or "test", got {fit_on!r}')
        if seeds < 1:
            raise ValueError(f"seeds is at least 1 start of k-means, got {seeds}")
        self.clusters, self.fit_on, self.seeds, self.seed = clusters, fit_on, seeds, seed

    def __call__(self, train: Features, test: HeldOut[Features]) -> list[Score]:
        if train.multi_label:
            raise ValueError("clustering is scored by one label per image, and these are multi-hot")
        classes = len(train.y.unique())
        k = self.clusters or classes
        if self.fit_on == "train":
            centroids = self._fitted(train.x, k)
            held = test.read()
            rows = unit_rows(held.x.float())
        else:
            held = test.read()
            rows, centroids = unit_rows(held.x.float()), self._fitted(held.x, k)
        clusters = nearest_centroid(rows, centroids)[0].numpy(force=True)
        labels = held.y.numpy(force=True)
        detail = f"{k} clusters of {len(train) if self.fit_on == 'train' else len(held)} {self.fit_on} images"
        right = matched_images(clusters, labels)
        how = joined(detail, f"{len(np.unique(clusters))} of them with test images, matched with test labels")
        accuracy = proportion("accuracy", int(right.sum()), len(right), joined(how, "matching held fixed"))
        return [replace(accuracy, per_image=right.astype(np.float32)), *agreement_scores(clusters, labels, detail)]

    def describe(self) -> str:
        k = "as many clusters as train has classes" if self.clusters is None else f"{self.clusters} clusters"
        starts = f", the start of {self.seeds} with the smallest inertia" if self.seeds > 1 else ""
        test = "each test image in the nearest cluster" if self.fit_on == "train" else "without labels"
        return (
            f"k-means of L2-normalized {self.fit_on} features, {k}{starts}, {test}; accuracy under the best one-to-one matching "
            "of clusters and classes, found with the test labels"
        )

    def _fitted(self, features: Tensor, k: int) -> Tensor:
        if len(features) < k:
            raise ValueError(f"clusters: {k} clusters need at least as many {self.fit_on} images, got {len(features)}")
        return best_centroids(unit_rows(features.float()), k, self.seeds, self.seed, self.progress)
