"""SIGReg's statistic against plain loops, numerical integration and its closed form."""

from math import cos, exp, pi, sin, sqrt

import pytest
import torch
from scipy.integrate import quad

from wildfern.ssl.losses import characteristic_function, epps_pulley


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def statistic(x, knots=17, t_max=3.0):
    """Of the numbers float[N]."""
    one = torch.ones(1, 1, dtype=x.dtype)
    return float(epps_pulley(characteristic_function(x[:, None], one, knots, t_max), len(x), t_max))


def integrand(t, x):
    real = sum(cos(t * v) for v in x) / len(x)
    imaginary = sum(sin(t * v) for v in x) / len(x)
    return ((real - exp(-t * t / 2)) ** 2 + imaginary**2) * exp(-t * t / 2)


SAMPLES = {"shifted": normal(9) + 0.7, "narrow": 0.3 * normal(20, seed=1), "constant": torch.zeros(4).double()}


@pytest.mark.parametrize("name", SAMPLES)
def test_is_the_integral_over_the_characteristic_function(name):
    x = SAMPLES[name]
    expected = len(x) * quad(integrand, -3, 3, args=(x.tolist(),))[0]
    assert statistic(x) == pytest.approx(expected, rel=0.02)  # 17 knots
    assert statistic(x, knots=2001) == pytest.approx(expected, rel=1e-5)


def test_has_the_closed_form_over_all_t():
    x = SAMPLES["shifted"].tolist()
    n = len(x)
    pairs = sum(exp(-((a - b) ** 2) / 2) for a in x for b in x) / n**2
    single = sum(exp(-(a**2) / 4) / sqrt(2) for a in x) / n
    expected = n * sqrt(2 * pi) * (pairs - 2 * single + 1 / sqrt(3))
    assert statistic(torch.tensor(x), knots=400, t_max=10.0) == pytest.approx(expected, rel=1e-4)


def test_matches_the_plain_loop_over_views_and_directions():
    z, directions = normal(2, 5, 3), torch.nn.functional.normalize(normal(3, 4, seed=1), dim=0)
    found = epps_pulley(characteristic_function(z, directions, 3, 2.0), 5, 2.0)
    for v in range(2):
        for m in range(4):
            x = [sum(float(z[v, n, d] * directions[d, m]) for d in range(3)) for n in range(5)]
            middle, end = integrand(1.0, x), integrand(2.0, x)
            whole = 5 * 2 * (integrand(0.0, x) / 2 + middle + end / 2)
            assert float(found[v, m]) == pytest.approx(whole)


def test_parts_of_a_batch_average_to_the_whole():
    z, directions = normal(2, 8, 3), normal(3, 4, seed=1)
    parts = [characteristic_function(z[:, half], directions) for half in (slice(4), slice(4, 8))]
    torch.testing.assert_close(sum(parts) / 2, characteristic_function(z, directions))


def test_is_small_for_normal_numbers_only():
    assert statistic(normal(4000)) < 2
    assert statistic(0.7 * normal(4000)) > 20
    assert statistic((12**0.5) * (torch.rand(4000, generator=torch.Generator().manual_seed(0)) - 0.5)) > 5


def test_invalid_arguments_are_named():
    with pytest.raises(ValueError, match="two or more knots"):
        epps_pulley(torch.zeros(2, 1), 4)
