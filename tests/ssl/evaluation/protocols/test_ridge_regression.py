import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from wildfern.ssl.evaluation import Features
from wildfern.ssl.evaluation.protocols.ridge_regression import RidgePath


def data(n, dim, seed=0):
    """Features of very different scales, one of them constant, and two targets far from 0."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dim, generator=generator) * torch.logspace(-2, 2, dim) + 5
    x[:, 1] = 0.1
    return Features(x, torch.randn(n, 2, generator=generator) * torch.tensor([3.0, 0.1]) + 100)


@pytest.mark.parametrize(("n", "dim"), [(300, 12), (20, 60)])  # more rows than features, and fewer
def test_every_minimum_is_scikit_learns(n, dim):
    train, other = data(n, dim), data(50, dim, seed=1)
    scaler = StandardScaler().fit(train.x.double().numpy())
    x, unseen = (scaler.transform(part.x.double().numpy()) for part in (train, other))
    path = RidgePath(train)
    for strength in (1e3, 1.0, 1e-6):
        model = Ridge(alpha=strength * n).fit(x, train.y.double().numpy())
        found = path.predictor([strength, strength])
        np.testing.assert_allclose(found.weight.numpy(), model.coef_.T, atol=1e-9)
        np.testing.assert_allclose(found(other.x).numpy(), model.predict(unseen), rtol=1e-9)


def test_each_target_has_a_strength_of_its_own_and_does_not_change_the_others():
    train = data(100, 8)
    both = RidgePath(train).predictor([1.0, 1e-3])(train.x)
    for column, strength in enumerate((1.0, 1e-3)):
        alone = RidgePath(Features(train.x, train.y[:, column : column + 1])).predictor([strength])
        torch.testing.assert_close(alone(train.x)[:, 0], both[:, column])


def test_some_rows_are_a_training_set_of_their_own(monkeypatch):
    train, rows = data(100, 8), torch.arange(0, 100, 3)
    expected = RidgePath(train[rows]).predictor([0.1, 0.1])(train.x)
    torch.testing.assert_close(RidgePath(train, rows).predictor([0.1, 0.1])(train.x), expected)
    monkeypatch.setattr(
        "wildfern.ssl.evaluation.protocols.logistic_regression.COPIED_UP_TO", 0
    )  # as of features in a file
    torch.testing.assert_close(RidgePath(train, rows).predictor([0.1, 0.1])(train.x), expected)


def test_float32_reaches_the_same_minimum(monkeypatch):
    train = data(300, 12)
    exact = RidgePath(train).predictor([1e-2, 1e-2])(train.x)
    monkeypatch.setattr("wildfern.ssl.evaluation.protocols.logistic_regression.FLOAT64_UP_TO", 0)
    path = RidgePath(train)
    assert path.dtype == torch.float32
    torch.testing.assert_close(path.predictor([1e-2, 1e-2])(train.x), exact, atol=1e-4, rtol=0)
