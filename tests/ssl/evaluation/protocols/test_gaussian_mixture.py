import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from class_clouds import points
from scipy import stats
from sklearn.mixture import GaussianMixture

from wildfern.ssl.evaluation.protocols import gaussian_mixture
from wildfern.ssl.evaluation.protocols.category_discovery import draw_labeled
from wildfern.ssl.evaluation.protocols.gaussian_mixture import (
    Components,
    Prior,
    expectation_maximization,
    mixture_clusters,
    principal_components,
    split_and_merge,
)
from wildfern.ssl.evaluation.protocols.semi_supervised_k_means import semi_supervised_k_means


def test_the_marginal_likelihood_is_the_product_of_predictive_densities():
    """Each image given the ones before is a Student t (Murphy, 2007, section 5); their product is h(Z)."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(7, 3)) * [0.5, 2, 1])
    prior = Prior(torch.tensor([0.1, -1.0, 2.0]).double(), torch.tensor([0.3, 2.0, 1.0]).double(), images=4.0)
    kappa0 = gaussian_mixture.KAPPA
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
    monkeypatch.setattr(gaussian_mixture, "KAPPA", 1e-12)
    monkeypatch.setattr(gaussian_mixture, "TOLERANCE", 1e-13)
    monkeypatch.setattr(gaussian_mixture, "ITERATIONS", 2000)
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


def test_principal_components_keep_the_share_of_the_variance():
    x = torch.randn(300, 90, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -3, 90)
    z = principal_components(x)
    covariance = np.cov(z.T.numpy(), bias=True)
    values = np.linalg.eigvalsh(np.cov(x.T.numpy(), bias=True))[::-1]
    np.testing.assert_allclose(np.diag(covariance), values[: z.shape[1]], rtol=1e-4)
    kept = np.cumsum(values) / values.sum()
    assert kept[z.shape[1] - 2] < 0.95 <= kept[z.shape[1] - 1]
    assert principal_components(torch.randn(300, 90, generator=torch.Generator().manual_seed(0))).shape == (300, 64)
