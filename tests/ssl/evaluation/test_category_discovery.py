import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from wildfern.ssl.evaluation import Features, HeldOut, category_discovery, wilson_interval
from wildfern.ssl.evaluation.category_discovery import (
    CategoryDiscovery,
    Components,
    Prior,
    count_by_labeled_accuracy,
    draw_labeled,
    expectation_maximization,
    mixture_clusters,
    principal_components,
    semi_supervised_k_means,
    split_and_merge,
)


def points(n, classes=6, seed=0, noise=0.12, dim=10):
    generator = torch.Generator().manual_seed(seed)
    centers = F.normalize(torch.randn(classes, dim, generator=torch.Generator().manual_seed(4)), dim=1)
    y = torch.arange(n) % classes
    return Features(3 * (centers[y] + noise * torch.randn(n, dim, generator=generator)), y + 2)


def by_metric(scores):
    return {score.metric: score for score in scores}


@pytest.mark.parametrize(
    ("known", "labeled", "chosen", "shown"), [(0.5, 0.5, 3, 5), (0.01, 0.001, 1, 1), (0.99, 1, 5, 10)]
)
def test_known_classes_and_their_labeled_images_are_drawn(known, labeled, chosen, shown):
    y = points(60).y
    classes, given = draw_labeled(y, known, labeled, seed=1)
    assert len(classes.unique()) == len(classes) == chosen
    for place, label in enumerate(classes):
        assert (given == place).sum() == shown
        assert (y[given == place] == label).all()
    assert (given >= 0).sum() == chosen * shown
    again = draw_labeled(y, known, labeled, seed=1)
    assert torch.equal(again[0], classes)
    assert torch.equal(again[1], given)
    assert not torch.equal(draw_labeled(y, known, 0.5, seed=2)[1], draw_labeled(y, known, 0.5, seed=1)[1])


def test_k_means_without_labels_is_scikit_learns():
    x = points(200, noise=0.3).x
    centroids, clusters = semi_supervised_k_means(x, torch.full((200,), -1), 6, seed=0)
    inertia = (x - centroids[clusters]).square().sum().item()
    assert inertia == pytest.approx(KMeans(6, n_init=10, random_state=0).fit(x.numpy()).inertia_, rel=1e-4)


def test_labeled_images_keep_their_cluster_in_k_means():
    data = points(120, noise=0.4)
    given = torch.full((120,), -1)
    given[:40] = data.y[:40] % 3  # not the clusters in which they would fall
    centroids, clusters = semi_supervised_k_means(data.x, given, 5, seed=0)
    assert torch.equal(clusters[:40], given[:40])
    distance = torch.cdist(data.x, centroids)
    assert (distance[:40].argmin(1) != given[:40]).any()
    assert torch.equal(distance[40:].argmin(1), clusters[40:])
    for k in range(5):
        torch.testing.assert_close(centroids[k], data.x[clusters == k].mean(0))


def test_the_marginal_likelihood_is_the_product_of_predictive_densities():
    """Each image given the ones before is a Student t (Murphy, 2007, section 5); their product is h(Z)."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(7, 3)) * [0.5, 2, 1])
    prior = Prior(torch.tensor([0.1, -1.0, 2.0]).double(), torch.tensor([0.3, 2.0, 1.0]).double(), images=4.0)
    kappa0 = category_discovery.KAPPA
    expected = math.lgamma(7)
    for d in range(3):
        mean, variance = prior.mean[d].item(), prior.variance[d].item()
        kappa, nu, scatter = kappa0, prior.images, prior.images * variance
        for x in z[:, d].tolist():
            scale = math.sqrt(scatter / nu * (1 + 1 / kappa))
            expected += stats.t.logpdf(x, nu, loc=mean, scale=scale)
            scatter += kappa / (kappa + 1) * (x - mean) ** 2
            mean, kappa, nu = (kappa * mean + x) / (kappa + 1), kappa + 1, nu + 1
    components = Components.of(z, torch.ones(7, 1).double())
    assert prior.log_weight(components).item() == pytest.approx(expected)
    assert prior.posterior(components)[0][0, 2].item() == pytest.approx(mean)
    assert prior.posterior(components)[1][0, 2].item() == pytest.approx(scatter / nu)


def test_expectation_maximization_is_scikit_learns_for_a_weak_prior(monkeypatch):
    monkeypatch.setattr(category_discovery, "KAPPA", 1e-12)
    monkeypatch.setattr(category_discovery, "TOLERANCE", 1e-13)
    monkeypatch.setattr(category_discovery, "ITERATIONS", 2000)
    z = points(240, classes=3, noise=0.5, dim=4).x.double()
    given = torch.full((240,), -1)
    start = F.one_hot(semi_supervised_k_means(z, given, 3, seed=0)[1], 3).double()
    prior = Prior(z.mean(0), z.var(0), images=1e-9)
    shares = expectation_maximization(z, given, start, prior)
    mean, variance = prior.posterior(Components.of(z, shares))
    first, spread = prior.posterior(Components.of(z, start))
    settings = {
        "weights_init": start.mean(0).numpy(),
        "means_init": first.numpy(),
        "precisions_init": 1 / spread.numpy(),
    }
    model = GaussianMixture(3, covariance_type="diag", tol=1e-12, max_iter=3000, reg_covar=0, **settings).fit(z.numpy())
    np.testing.assert_allclose(mean.numpy(), model.means_, atol=1e-3)
    np.testing.assert_allclose(variance.numpy(), model.covariances_, rtol=2e-2)


@pytest.mark.parametrize("begin", [4, 6, 14])
def test_splits_and_merges_find_the_classes(begin):
    data = points(240)
    given = draw_labeled(data.y, 0.5, 0.5, seed=0)[1]
    z = data.x.double()
    prior = Prior.of(z, given)
    shares = F.one_hot(semi_supervised_k_means(z, given, begin, seed=0)[1], begin).double()
    shares = split_and_merge(z, given, expectation_maximization(z, given, shares, prior), prior, most=240, seed=0)
    owner = shares.argmax(1)
    assert shares.shape[1] == 6
    assert torch.equal(owner[given >= 0], given[given >= 0])
    assert len(torch.stack([owner, data.y]).unique(dim=1).T) == 6  # one component for each class


def test_the_limit_holds_and_known_classes_stay_apart():
    data = points(240)
    given = draw_labeled(data.y, 0.5, 0.5, seed=0)[1]
    assert len(mixture_clusters(data.x.double(), given, None, most=5, seed=0).unique()) == 5
    alike = torch.randn(120, 4, generator=torch.Generator().manual_seed(0)).double()
    given = torch.where(torch.arange(120) < 60, torch.arange(120) % 3, -1)  # three known classes of one distribution
    owner = mixture_clusters(alike, given, None, most=120, seed=0)
    assert torch.equal(owner[:60], given[:60])
    assert len(owner.unique()) == 3


def test_the_number_of_classes_is_that_which_clusters_labeled_images_best():
    data = points(180)
    given = draw_labeled(data.y, 0.7, 0.5, seed=0)[1]
    assert count_by_labeled_accuracy(data.x, given, 30, seed=0) == 6


def test_principal_components_keep_the_share_of_the_variance():
    x = torch.randn(300, 90, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -3, 90)
    z = principal_components(x)
    covariance = np.cov(z.T.numpy(), bias=True)
    values = np.linalg.eigvalsh(np.cov(x.T.numpy(), bias=True))[::-1]
    np.testing.assert_allclose(np.diag(covariance), values[: z.shape[1]], rtol=1e-4)
    kept = np.cumsum(values) / values.sum()
    assert kept[z.shape[1] - 2] < 0.95 <= kept[z.shape[1] - 1]
    assert principal_components(torch.randn(300, 90, generator=torch.Generator().manual_seed(0))).shape == (300, 64)


@pytest.mark.parametrize("algorithm", ["gmm", "kmeans"])
def test_scores_are_those_of_one_matching_over_all_images(algorithm):
    train, test = points(240, noise=0.3), points(90, seed=1, noise=0.3)
    evaluator = CategoryDiscovery(algorithm=algorithm, classes=6, seed=3)
    scores = by_metric(evaluator(train, HeldOut(test)))
    assert list(scores) == ["accuracy", "known_accuracy", "novel_accuracy"]
    known, given = draw_labeled(train.y, 0.5, 0.5, seed=3)
    rows, queries = F.normalize(train.x, dim=1), F.normalize(test.x, dim=1)
    if algorithm == "kmeans":
        nearest = torch.cdist(queries, semi_supervised_k_means(rows, given, 6, seed=3)[0]).argmin(1)
    else:
        owner = mixture_clusters(principal_components(rows), given, 6, 240, seed=3)
        means = torch.stack([rows[owner == k].mean(0) for k in range(6)])
        nearest = ((queries @ F.normalize(means, dim=1).T) / 0.1).softmax(1).argmax(1)
    best = max(
        itertools.permutations(range(2, 8)), key=lambda labels: (torch.tensor(labels)[nearest] == test.y).sum().item()
    )
    right = torch.tensor(best)[nearest] == test.y
    of_known = torch.isin(test.y, known)
    for metric, counted in (("accuracy", of_known | True), ("known_accuracy", of_known), ("novel_accuracy", ~of_known)):
        score = scores[metric]
        assert score.value == pytest.approx(right[counted].float().mean().item())
        assert score.n == int(counted.sum())
        assert (score.low, score.high) == wilson_interval(int(right[counted].sum()), score.n)
        assert score.per_image.tolist() == right[counted].tolist()
    assert 0.6 < scores["accuracy"].value < 1


@pytest.mark.parametrize("algorithm", ["gmm", "kmeans"])
def test_the_number_is_a_score_if_it_is_estimated(algorithm):
    train, test = points(240), points(60, seed=1)
    scores = by_metric(CategoryDiscovery(algorithm=algorithm, max_classes=40, known=0.7)(train, HeldOut(test)))
    number = scores["estimated_classes"]
    assert (number.value, number.low, number.high, number.n, number.share) == (6, None, None, 0, False)
    assert "true number 6" in number.detail
    assert scores["accuracy"].value == 1


class ReadAfter(HeldOut):
    def __init__(self, data, chosen):
        super().__init__(data)
        self.chosen = chosen

    def read(self):
        assert self.chosen
        return super().read()


@pytest.mark.parametrize("algorithm", ["gmm", "kmeans"])
def test_unlabeled_labels_and_test_choose_nothing(algorithm, monkeypatch):
    train, test = points(240, noise=0.3), points(90, seed=1, noise=0.3)
    evaluator = CategoryDiscovery(algorithm=algorithm, max_classes=12)
    chosen = []
    prototypes = evaluator._prototypes
    monkeypatch.setattr(evaluator, "_prototypes", lambda *given: chosen.append(prototypes(*given)) or chosen[-1])
    state = torch.random.get_rng_state()
    first = evaluator(train, ReadAfter(test, chosen))
    assert torch.equal(torch.random.get_rng_state(), state)
    novel = (~torch.isin(train.y, draw_labeled(train.y, 0.5, 0.5, seed=0)[0])).nonzero()[:, 0]
    mixed = train.y.clone()
    mixed[novel] = mixed[novel.roll(1)]  # labels of novel images, which are never shown
    assert not torch.equal(mixed, train.y)
    assert evaluator(Features(train.x, mixed), HeldOut(test)) == first
    evaluator(train, HeldOut(Features(test.x.flip(1), test.y.flip(0))))
    assert torch.equal(chosen[0], chosen[1])
    assert torch.equal(chosen[0], chosen[2])


def test_test_classes_without_train_images_are_novel():
    train, test = points(240), points(60, seed=1)
    labels = test.y.clone()
    labels[:6] = 99
    scores = by_metric(CategoryDiscovery(classes=6)(train, HeldOut(Features(test.x, labels))))
    assert scores["known_accuracy"].n + scores["novel_accuracy"].n == 60
    assert scores["accuracy"].value == pytest.approx(54 / 60)
    assert "novel without train images: 99 (6 test images)" in scores["accuracy"].detail
    known = draw_labeled(train.y, 0.5, 0.5, seed=0)[0]
    alone = by_metric(CategoryDiscovery(classes=6)(train, HeldOut(test[torch.isin(test.y, known)])))
    assert list(alone) == ["accuracy", "known_accuracy"]


def test_impossible_settings_and_data_are_refused():
    for settings, message in (
        ({"algorithm": "dbscan"}, 'algorithm is "gmm" or "kmeans"'),
        ({"known": 1.0}, "known is the share of the classes"),
        ({"labeled": 0.0}, "labeled is the share of the images"),
        ({"classes": 1}, "classes is at least 2, or null"),
        ({"max_classes": 1}, "max_classes is at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            CategoryDiscovery(**settings)
    data = points(60)

    def run(train=data, **settings):
        return CategoryDiscovery(**settings)(train, HeldOut(train))

    with pytest.raises(
        ValueError, match="classes is at least the 3 known classes, and at most those and one for each of 45"
    ):
        run(classes=2)
    with pytest.raises(ValueError, match="got 49"):
        run(classes=49)
    with pytest.raises(ValueError, match="max_classes is less than the 3 known classes, got 2"):
        run(max_classes=2)
    with pytest.raises(ValueError, match="no known class has two labeled images"):
        run(labeled=0.01)
    with pytest.raises(ValueError, match="at least two classes"):
        run(Features(data.x, torch.zeros_like(data.y)))
    with pytest.raises(ValueError, match="each image with its label"):
        run(Features(data.x, data.y - 3))
    with pytest.raises(ValueError, match="the backbone has collapsed"):
        run(Features(torch.ones_like(data.x), data.y))
    with pytest.raises(ValueError, match="one label per image"):
        run(Features(data.x, F.one_hot(data.y).byte()))
