import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from wildfern.ssl.evaluation import Features, HeldOut, wilson_interval
from wildfern.ssl.evaluation.protocols.clustering import Clustering, agreement_scores, best_centroids, matched_images


def points(n, classes=5, seed=0, noise=0.35, dim=8):
    """Directions around `classes` centers on the sphere, of very different lengths."""
    generator = torch.Generator().manual_seed(seed)
    centers = F.normalize(torch.randn(classes, dim, generator=torch.Generator().manual_seed(9)), dim=1)
    y = torch.arange(n) % classes
    x = centers[y] + noise * torch.randn(n, dim, generator=generator)
    return Features(x * torch.rand(n, 1, generator=generator).mul(4).exp(), y)


@pytest.mark.parametrize(("clusters", "classes"), [(3, 4), (4, 4), (5, 3)])
def test_the_matching_is_the_best_of_all(clusters, classes):
    rng = np.random.default_rng(clusters)
    found, labels = 7 * rng.integers(clusters, size=60), 10 + rng.integers(classes, size=60)
    most = 0
    names = [*range(10, 10 + classes), *[-1] * clusters]
    for assigned in set(itertools.permutations(names, clusters)):
        most = max(most, sum(assigned[c // 7] == y for c, y in zip(found, labels, strict=True)))
    right = matched_images(found, labels)
    assert right.sum() == most
    for cluster in np.unique(found):  # one class for each cluster, and no class twice
        assert len(np.unique(labels[right & (found == cluster)])) <= 1
    for label in np.unique(labels):
        assert len(np.unique(found[right & (labels == label)])) <= 1


@pytest.mark.parametrize(("clusters", "classes", "n"), [(6, 4, 90), (1, 4, 12), (4, 1, 12), (1, 1, 12), (40, 3, 40)])
def test_agreement_is_scikit_learns(clusters, classes, n):
    rng = np.random.default_rng(n)
    labels = np.arange(n) % classes
    found = np.where(rng.random(n) < 0.5, labels, np.arange(n)) % clusters
    nmi, ari = agreement_scores(found, labels + 3)
    assert nmi.value == pytest.approx(normalized_mutual_info_score(labels, found), abs=1e-12)
    assert ari.value == pytest.approx(adjusted_rand_score(labels, found), abs=1e-12)
    assert (nmi.share, ari.share) == (True, False)


def test_intervals_are_those_of_resampled_images():
    rng = np.random.default_rng(0)
    n = 80
    labels = rng.integers(4, size=n)
    found = np.where(rng.random(n) < 0.7, labels, rng.integers(5, size=n))
    resampled = [rng.integers(n, size=n) for _ in range(100)]
    for score, function in zip(
        agreement_scores(found, labels), (normalized_mutual_info_score, adjusted_rand_score), strict=True
    ):
        reach = 1.96 * np.std([function(labels[index], found[index]) for index in resampled], ddof=1)
        assert score.high - score.value == pytest.approx(reach, rel=0.15)
        assert score.value - score.low == pytest.approx(reach, rel=0.15)
        assert score.n == n


def test_mutual_information_lies_in_its_interval_where_percentiles_do_not():
    """Random clusters, few images of each: all resamples agree more than the images do."""
    rng = np.random.default_rng(0)
    labels, found = rng.integers(20, size=200), rng.integers(20, size=200)
    nmi = agreement_scores(found, labels)[0]
    index = [rng.integers(200, size=200) for _ in range(100)]
    assert np.quantile([normalized_mutual_info_score(labels[i], found[i]) for i in index], 0.025) > nmi.value
    assert nmi.low < nmi.value < nmi.high


@pytest.mark.parametrize("fit_on", ["train", "test"])
def test_scores_are_those_of_scikit_learns_k_means(fit_on):
    train, test = points(200, noise=0.25), points(120, seed=1, noise=0.25)
    rows = {"train": F.normalize(train.x, dim=1).numpy(), "test": F.normalize(test.x, dim=1).numpy()}
    model = KMeans(5, n_init=10, random_state=0).fit(rows[fit_on])
    expected, labels = model.predict(rows["test"]), test.y.numpy()
    accuracy, nmi, ari = Clustering(fit_on=fit_on)(train, HeldOut(test))
    right = int(matched_images(expected, labels).sum())
    assert accuracy.value == right / 120
    assert 0.6 < accuracy.value < 1
    assert (accuracy.low, accuracy.high) == wilson_interval(right, 120)
    assert accuracy.per_image.mean() == pytest.approx(accuracy.value)
    assert nmi.value == pytest.approx(normalized_mutual_info_score(labels, expected))
    assert ari.value == pytest.approx(adjusted_rand_score(labels, expected))
    assert f"5 clusters of {200 if fit_on == 'train' else 120} {fit_on} images" in accuracy.detail


def test_the_start_with_the_smallest_inertia_is_chosen():
    rows = F.normalize(torch.randn(300, 6, generator=torch.Generator().manual_seed(0)), dim=1)

    def inertia(centroids):
        return torch.cdist(rows, centroids).min(1).values.square().sum().item()

    alone = [inertia(best_centroids(rows, 12, starts, seed=0)) for starts in range(1, 7)]
    assert alone == sorted(alone, reverse=True)
    assert alone[-1] < alone[0]


class ReadAfter(HeldOut):
    """Fails when it is read before all starts were counted."""

    def __init__(self, data, counted):
        super().__init__(data)
        self.counted = counted

    def read(self):
        assert self.counted == [0, 1, 2]
        return super().read()


def test_labels_only_score_and_test_is_read_after_the_fit():
    train, test = points(150), points(60, seed=1)
    counted = []

    class Counting:
        def count(self, done, total, unit, detail=None):
            counted.append(done)

    evaluator = Clustering(seeds=3)
    evaluator.progress = Counting()
    first = evaluator(train, ReadAfter(test, counted))
    shuffled = Features(train.x, train.y.roll(1))
    assert Clustering(seeds=3)(shuffled, HeldOut(test)) == first
    renamed = Features(test.x, (test.y + 2) % 5)
    assert [s.value for s in Clustering(seeds=3)(train, HeldOut(renamed))] == [s.value for s in first]
    own = Clustering(fit_on="test")
    assert own(Features(train.x.flip(0), train.y), HeldOut(test)) == own(train, HeldOut(test))


def test_excess_clusters_count_as_wrong():
    train, test = points(200, noise=0.1), points(100, seed=1, noise=0.1)
    assert Clustering()(train, HeldOut(test))[0].value == 1
    more = Clustering(clusters=20)(train, HeldOut(test))[0]
    assert more.value < 0.7
    assert "20 clusters" in more.detail


def test_impossible_settings_and_data_are_refused():
    with pytest.raises(ValueError, match="clusters is at least 2, or null"):
        Clustering(clusters=1)
    with pytest.raises(ValueError, match="seeds is at least 1 start"):
        Clustering(seeds=0)
    with pytest.raises(ValueError, match='fit_on is "train" or "test"'):
        Clustering(fit_on="both")
    data = points(10)
    with pytest.raises(ValueError, match="11 clusters need at least as many train images, got 10"):
        Clustering(clusters=11)(data, HeldOut(data))
    with pytest.raises(ValueError, match="4 clusters need at least as many test images, got 3"):
        Clustering(clusters=4, fit_on="test")(data, HeldOut(data[:3]))
    hot = Features(data.x, F.one_hot(data.y).byte())
    with pytest.raises(ValueError, match="one label per image"):
        Clustering()(hot, HeldOut(hot))


def test_one_test_image_has_no_interval_of_agreement():
    accuracy, *agreement = Clustering()(points(40), HeldOut(points(1)))
    assert (accuracy.value, accuracy.n) == (1, 1)
    assert [(s.low, s.high, s.n) for s in agreement] == [(None, None, 1)] * 2
    assert "no interval from one test image" in agreement[0].detail
