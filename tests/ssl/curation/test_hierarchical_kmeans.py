"""k-means and its hierarchy against plain loops, and how far balanced samples flatten an imbalanced mixture."""

import numpy as np
import pytest
import torch

from wildfern.ssl.curation.hierarchical_kmeans import (
    Level,
    _means,
    balanced_sample,
    balanced_shares,
    hierarchical_k_means,
    k_means,
    nearest_centroid,
)
from wildfern.ssl.data import DataError

COUNTS = np.array([1500, 500, 200, 100, 50, 30, 20, 15])


def random_features(n=80, dim=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, dim)))


def mixture(dim=16, seed=0):
    """Eight Gaussians with 1,500 to 15 rows, and which one each row is of."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(len(COUNTS), dim)) * 3
    of_row = np.repeat(np.arange(len(COUNTS)), COUNTS)
    return torch.from_numpy(rng.normal(size=(len(of_row), dim)) * 0.5 + centers[of_row]).float(), of_row


def nearest_by_loop(x, centroids):
    distances = [[float(np.linalg.norm(row - centroid)) for centroid in centroids] for row in x]
    return np.argmin(distances, 1), np.min(distances, 1)


def lloyd_by_loop(x, centroids, iterations):
    of_item, _ = nearest_by_loop(x, centroids)
    for _ in range(iterations):
        centroids = np.array([x[of_item == k].mean(0) for k in range(len(centroids))])
        of_item, _ = nearest_by_loop(x, centroids)
    return centroids, of_item


def effective_number(sample, of_row):
    """exp(entropy) of the shares of the Gaussians in a sample: 8 if all have the same."""
    share = np.bincount(of_row[sample]) / len(sample)
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


@pytest.mark.parametrize("iterations", [0, 1, 2, 5, 50])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_k_means_matches_lloyds_loop(k, iterations):
    features = random_features() + 3
    start = k_means(features, k, seed=4, iterations=0)
    assert all((features == centroid).all(1).any() for centroid in start.centroids)
    found = k_means(features, k, seed=4, iterations=iterations)
    centroids, of_item = lloyd_by_loop(features.numpy(), start.centroids.numpy(), iterations)
    np.testing.assert_allclose(found.centroids.numpy(), centroids, atol=1e-12)
    assert found.of_item.tolist() == of_item.tolist()
    assert found.of_item.dtype == torch.int64
    np.testing.assert_allclose(found.distance.numpy(), nearest_by_loop(features.numpy(), centroids)[1], atol=1e-6)


def test_blocks_change_nothing(monkeypatch):
    features = random_features(300).float()
    whole = k_means(features, 9, seed=0)
    monkeypatch.setattr("wildfern.ssl.curation.hierarchical_kmeans.BLOCK", 100)
    assert torch.equal(k_means(features, 9, seed=0).of_item, whole.of_item)


def test_centroids_start_as_greedy_k_means_plus_plus_draws_them():
    """Two centroids of five points on a line: the exact chance of each pair against 2,000 seeds."""
    points = np.array([0.0, 1.0, 1.5, 4.0, 9.0])
    squared = (points[:, None] - points) ** 2
    chance = np.zeros((5, 5))
    for first in range(5):
        weight = squared[first] / squared[first].sum()
        left = [np.minimum(squared[first], squared[one]).sum() for one in range(5)]
        for one in range(5):
            for other in range(5):
                chance[first, one if left[one] <= left[other] else other] += weight[one] * weight[other] / 5
    features = torch.from_numpy(points)[:, None]
    found = np.zeros((5, 5))
    for seed in range(2000):
        first, second = k_means(features, 2, seed=seed, iterations=0).centroids[:, 0].tolist()
        found[points == first, points == second] += 1 / 2000
    np.testing.assert_allclose(found, chance, atol=4 * 0.5 / 2000**0.5)
    assert np.abs(found - chance).sum() < 0.15
    assert found.diagonal().sum() == 0


def test_far_gaussians_are_found_exactly():
    of_row = np.arange(400) % 8
    features = random_features(400, 8) + 20 * torch.eye(8)[of_row]
    for seed in range(5):
        of_item = k_means(features, 8, seed=seed).of_item.numpy()
        assert len({*zip(of_item.tolist(), of_row.tolist(), strict=True)}) == 8


def test_the_seed_decides():
    features = random_features()
    same = [k_means(features, 6, seed=1) for _ in range(2)]
    assert torch.equal(same[0].centroids, same[1].centroids)
    assert not torch.equal(same[0].centroids, k_means(features, 6, seed=2).centroids)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    k_means(features, 6, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_empty_clusters_start_again_at_the_farthest_rows():
    features = torch.tensor([[0.0], [1.0], [10.0], [12.0], [40.0]])
    centroids = torch.tensor([[0.5], [11.0], [90.0], [91.0]])
    of_item, distance = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0.5, 0.5, 1.0, 1.1, 29.0])
    found = _means(features, of_item, distance, centroids)
    torch.testing.assert_close(found, torch.tensor([[0.5], [62 / 3], [40.0], [12.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_enough_distinct_rows_no_cluster_is_empty(dtype):
    """Rows far from the origin, where products of float32 would draw a duplicate of a centroid as another one."""
    rows = random_features(10, 4).to(dtype) + 1000
    features = rows.repeat_interleave(torch.arange(1, 11) ** 2, 0)
    for seed in range(20):
        found = k_means(features, 10, seed=seed)
        assert len(found.of_item.unique()) == 10
        assert float(found.distance.max()) < 1e-3


def test_fewer_distinct_rows_than_clusters_leave_clusters_empty():
    features = random_features(3, 4).float().repeat(5, 1)
    found = k_means(features, 8, seed=0)
    assert len(found.of_item.unique()) == 3
    assert found.of_item[:3].repeat(5).tolist() == found.of_item.tolist()
    assert len(found.centroids) == 8
    assert found.centroids.isfinite().all()
    levels = hierarchical_k_means(features, [8, 2], seed=0, sample_sizes=[2, 2])
    assert len(balanced_sample(levels, 7, seed=0).unique()) == 7


def test_each_level_clusters_the_centroids_below():
    features = random_features(300)
    levels = hierarchical_k_means(features, [60, 15, 4], seed=0, resamples=3)
    assert [len(level.centroids) for level in levels] == [60, 15, 4]
    for below, level in zip([features, levels[0].centroids, levels[1].centroids], levels, strict=True):
        of_item, distance = nearest_by_loop(below.numpy(), level.centroids.numpy())
        assert level.of_item.tolist() == of_item.tolist()
        np.testing.assert_allclose(level.distance.numpy(), distance, atol=1e-6)
        again = nearest_centroid(below, level.centroids)
        assert torch.equal(again[0], level.of_item)
    same = hierarchical_k_means(features, [60, 15, 4], seed=0, resamples=3)
    assert all(torch.equal(a.centroids, b.centroids) for a, b in zip(levels, same, strict=True))


def test_centroids_are_means_of_the_rows_closest_to_the_centroids_before():
    """One resampling: each centroid is the mean of those of the resampled rows that are nearest to it."""
    features = random_features(200, 2)
    before = k_means(features, 5, seed=3)
    (after,) = hierarchical_k_means(features, [5], seed=3, resamples=1, sample_sizes=[6])
    x = features.numpy()
    closest = []
    for cluster in range(5):
        members = [item for item in range(200) if before.of_item[item] == cluster]
        closest += sorted(members, key=lambda item: float(before.distance[item]))[:6]
    of_closest, _ = nearest_by_loop(x[closest], after.centroids.numpy())
    expected = [x[closest][of_closest == cluster].mean(0) for cluster in range(5)]
    np.testing.assert_allclose(after.centroids.numpy(), expected, atol=1e-12)
    (none,) = hierarchical_k_means(features, [5], seed=3, resamples=1, sample_sizes=[1])
    assert torch.equal(none.centroids, before.centroids)


def test_shares_match_giving_one_at_a_time():
    rng = np.random.default_rng(0)
    for _ in range(50):
        parents = int(rng.integers(1, 6))
        parent = rng.integers(0, parents, 30)
        sizes = rng.integers(0, 20, 30)
        targets = np.array([rng.integers(0, sizes[parent == p].sum() + 1) for p in range(parents)])
        shares = balanced_shares(sizes, parent, targets, rng)
        for p in range(parents):
            given = np.zeros(int((parent == p).sum()), int)
            for _ in range(targets[p]):  # to the one with the fewest that has more
                open_ = np.flatnonzero(given < sizes[parent == p])
                given[open_[given[open_].argmin()]] += 1
            # The same numbers; only which of equal ones get the remainder may differ.
            assert sorted(shares[parent == p].tolist()) == sorted(given.tolist())
            full = sizes[parent == p] < given.max(initial=0)
            assert (shares[parent == p] == given)[full].all()


@pytest.mark.parametrize("order", ["random", "closest"])
@pytest.mark.parametrize("target", [1, 37, 300, 1999, 2000])
def test_every_parent_shares_its_number_evenly(order, target):
    features = random_features(2000, 2)
    levels = hierarchical_k_means(features, [100, 20, 4], seed=1, resamples=1)
    sample = balanced_sample(levels, target, seed=0, order=order)
    assert sample.tolist() == sorted(set(sample.tolist()))
    assert len(sample) == target
    assert torch.equal(sample, balanced_sample(levels, target, seed=0, order=order))

    first, second, third = (level.of_item.numpy() for level in levels)
    paths = np.stack([np.zeros(2000, int), third[second[first]], second[first], first], 1)
    chosen = np.zeros(2000, bool)
    chosen[sample.numpy()] = True
    for depth in range(3):
        for node in np.unique(paths[:, depth]):
            inside = paths[:, depth] == node
            sizes, counts = (
                np.array([(paths[rows, depth + 1] == child).sum() for child in np.unique(paths[inside, depth + 1])])
                for rows in (inside, inside & chosen)
            )
            x = max(x for x in range(2001) if np.minimum(x, sizes).sum() <= counts.sum())
            extra = counts - np.minimum(x, sizes)
            assert set(extra.tolist()) <= {0, 1}
            assert (extra[sizes <= x] == 0).all()
    if order == "closest":
        distance = levels[0].distance.numpy()
        for cluster in range(100):
            inside = first == cluster
            if (inside & chosen).any() and (inside & ~chosen).any():
                assert distance[inside & chosen].max() <= distance[inside & ~chosen].min()


def test_samples_are_random_and_uniform_within_clusters():
    level = Level(torch.zeros(2, 1), torch.tensor([0] * 30 + [1] * 10), torch.arange(40.0))
    counts = np.zeros(40)
    for seed in range(600):
        counts[balanced_sample([level], 15, seed=seed).numpy()] += 1
    # 7 or 8 of each cluster, the remainder at random: 7.5 of 30 and 7.5 of 10.
    np.testing.assert_allclose(counts[:30] / 600, 0.25, atol=0.08)
    np.testing.assert_allclose(counts[30:] / 600, 0.75, atol=0.08)


@pytest.mark.parametrize("seed", range(3))
def test_balanced_samples_of_an_imbalanced_mixture_are_balanced(seed):
    """Of all rows 62 % are of the largest Gaussian, of a balanced sample 15 %, which is nearly what labels would give."""
    features, of_row = mixture(seed=seed)
    flat = balanced_sample(hierarchical_k_means(features, [150], seed=seed, resamples=0), 250, seed=seed).numpy()
    levels = hierarchical_k_means(features, [150, 40, 10], seed=seed, resamples=5)
    balanced = balanced_sample(levels, 250, seed=seed).numpy()
    by_labels = balanced_shares(COUNTS, np.zeros(8, np.int64), np.array([250]), np.random.default_rng(0))
    assert effective_number(np.arange(len(of_row)), of_row) == pytest.approx(3.21, abs=0.01)
    assert effective_number(flat, of_row) < 5.2
    assert effective_number(balanced, of_row) > 7.5
    assert effective_number(np.repeat(np.arange(8), by_labels), np.arange(8)) == pytest.approx(7.68, abs=0.01)
    share = np.bincount(of_row[balanced]) / 250
    assert share.max() < 0.2
    assert share.min() == 15 / 250  # all of the smallest


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: k_means(x, 81, seed=0), "81 clusters need at least one each, and at least as many images, got 80"),
        (lambda x: k_means(x, 0, seed=0), "0 clusters need at least one"),
        (lambda x: k_means(x / 0, 3, seed=0), "row 0 of the features contains NaN or infinity"),
        (lambda x: hierarchical_k_means(x, [], seed=0), "sizes must decrease"),
        (lambda x: hierarchical_k_means(x, [80], seed=0), "sizes must decrease from below the number of images, 80"),
        (lambda x: hierarchical_k_means(x, [9, 9], seed=0), "sizes must decrease"),
        (lambda x: hierarchical_k_means(x, [9, 0], seed=0), "sizes must decrease"),
        (lambda x: hierarchical_k_means(x, [9, 3], seed=0, sample_sizes=[2]), "one for each of 2 levels"),
        (lambda x: balanced_sample([k_means(x, 3, seed=0)], 81, seed=0), "target must be in 1 … 80"),
        (lambda x: balanced_sample([k_means(x, 3, seed=0)], 0, seed=0), "target must be in 1 … 80"),
        (lambda x: balanced_sample([k_means(x, 3, seed=0)], 5, seed=0, order="far"), 'order must be "random" or'),
    ],
)
def test_impossible_requests_are_refused(call, message):
    with pytest.raises(DataError, match=message):
        call(random_features())
