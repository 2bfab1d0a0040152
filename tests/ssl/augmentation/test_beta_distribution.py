import numpy as np
import pytest
from scipy import stats

from wildfern.generators.counter_rng import fold
from wildfern.ssl.augmentation.beta_distribution import beta
from wildfern.ssl.augmentation.view_keys import image_keys


@pytest.mark.parametrize(
    ("a", "b"), [(1, 1), (0.2, 0.2), (0.8, 0.8), (2.5, 0.5), (1.5, 6), (30, 30), (3, 1), (1, 3), (0.4, 1)]
)
def test_distribution(a, b):
    drawn = beta(image_keys("beta", 5, 2, 1, np.arange(20_000)), a, b)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert stats.kstest(drawn, stats.beta(a, b).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.03


def test_a_variate_depends_on_its_key_only():
    keys = fold(np.full(1, 3, np.uint64), np.arange(60)).reshape(4, 15)
    drawn = beta(keys, 0.7, 1.3)
    assert drawn.shape == (4, 15)
    np.testing.assert_array_equal(beta(keys[2, 4:9], 0.7, 1.3), drawn[2, 4:9])


def test_tiny_parameters_give_finite_numbers():
    drawn = beta(image_keys("beta", 0, 0, 0, np.arange(2000)), 1e-3, 1e-3)
    assert np.isfinite(drawn).all()
    assert abs(drawn.mean() - 0.5) < 0.05


@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, -2), (float("nan"), 1), (1, float("inf"))])
def test_impossible_parameters(a, b):
    with pytest.raises(ValueError, match="positive and finite"):
        beta(np.zeros(1, np.uint64), a, b)
