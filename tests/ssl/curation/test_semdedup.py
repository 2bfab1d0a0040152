"""SemDeDup against a plain loop from the definition."""

import numpy as np
import pytest
import torch

from wildfern.ssl.curation.hierarchical_kmeans import k_means
from wildfern.ssl.curation.semdedup import semdedup
from wildfern.ssl.data import DataError


def by_loop(features, clusters, epsilon):
    x = features.double().numpy()
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    x = np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)
    keep = np.ones(len(x), bool)
    for cluster in set(clusters.tolist()) - {-1}:
        items = [item for item in range(len(x)) if clusters[item] == cluster]
        centroid = x[items].mean(0)
        items.sort(key=lambda item: -round(float(np.linalg.norm(x[item] - centroid)), 12))
        for place, item in enumerate(items):
            if any(x[item] @ x[before] > 1 - epsilon for before in items[:place]):
                keep[item] = False
    return keep.tolist()


@pytest.mark.parametrize("epsilon", [0.001, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("chunk", [1, 5, 4096])
def test_kept_items_match_the_plain_loop(epsilon, chunk):
    rng = np.random.default_rng(2)
    features = torch.from_numpy(rng.normal(size=(90, 4)))
    features[40:60] = features[:20] * 4  # duplicates, some of them in other clusters
    features[[7, 8]] = 0
    clusters = rng.integers(-1, 4, 90)
    clusters[40:50] = clusters[:10]
    keep = semdedup(features, clusters, epsilon, chunk=chunk)
    assert keep.dtype == torch.bool
    assert keep.tolist() == by_loop(features, clusters, epsilon)
    assert 0 < int((~keep).sum()) < 90
    assert keep[clusters == -1].all()


def test_of_equal_rows_the_first_stays_and_a_larger_epsilon_drops_more():
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(50, 8)).astype(np.float32)).repeat(3, 1)
    clusters = k_means(features, 4, seed=0).of_item
    assert semdedup(features, clusters, 1e-5).tolist() == [True] * 50 + [False] * 100
    assert semdedup(features, clusters, 0.0).all()
    kept = [int(semdedup(features, clusters, epsilon).sum()) for epsilon in (0.0, 1e-5, 0.1, 0.3, 0.6, 1.0)]
    assert kept == sorted(kept, reverse=True)
    assert kept[:2] == [150, 50]
    assert kept[-1] < 25


def test_the_hardest_of_a_chain_stays():
    """Angles 0, 8, 16, 60 degrees, one cluster, its centroid at about 20 degrees: 60 is farthest, then 0, 8, 16."""
    angle = torch.deg2rad(torch.tensor([16.0, 60.0, 8.0, 0.0]))
    features = torch.stack([angle.cos(), angle.sin()], 1)
    epsilon = 1 - float(torch.deg2rad(torch.tensor(10.0)).cos())
    assert semdedup(features, torch.zeros(4, dtype=torch.int32), epsilon).tolist() == [False, True, False, True]


def test_no_rows_and_single_rows_stay():
    assert semdedup(torch.zeros(0, 3), np.zeros(0, np.int64), 0.1).tolist() == []
    assert semdedup(torch.ones(3, 3), np.arange(3), 0.1).tolist() == [True] * 3


def test_other_settings_are_refused():
    for epsilon in (-0.1, 1.5, float("nan")):
        with pytest.raises(DataError, match="epsilon must be in 0 … 1"):
            semdedup(torch.eye(3), [0, 0, 0], epsilon)
    for clusters in ([0, 0], [[0], [0], [0]], [0.0, 0.0, 0.0]):
        with pytest.raises(DataError, match="clusters must be integers, one for each of 3 images"):
            semdedup(torch.eye(3), clusters, 0.1)
