import math

import pytest
import torch
import torch.nn.functional as F
from lightly.utils.debug import std_of_l2_normalized

from wildfern.ssl.evaluation import alignment, diagnostics, feature_std, rank_me, uniformity


def rows(n, dim, rank=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rank = rank or dim
    left = torch.randn(n, rank, generator=generator, dtype=torch.float64)
    return left @ torch.randn(rank, dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("n", "dim", "rank"), [(40, 8, 8), (40, 8, 2), (5, 9, 5)])
def test_rank_me_matches_the_formula(n, dim, rank):
    z = rows(n, dim, rank)
    singular = torch.linalg.eigvalsh(z.T @ z).clamp(min=0).sqrt().sort(descending=True).values[: min(n, dim)].tolist()
    entropy = 0.0
    for s in singular:
        p = s / sum(singular) + 1e-7
        entropy -= p * math.log(p)
    assert rank_me(z).item() == pytest.approx(math.exp(entropy), rel=1e-5)


def test_rank_me_counts_equal_directions():
    q = torch.linalg.qr(rows(30, 6)).Q
    assert rank_me(q).item() == pytest.approx(6, rel=1e-4)
    assert rank_me(torch.ones(30, 6)).item() == pytest.approx(1, abs=1e-4)


def test_feature_std_is_lightlys_times_root_d():
    z = rows(50, 16)
    assert feature_std(z).item() == pytest.approx(std_of_l2_normalized(z).item() * 4)
    assert feature_std(torch.ones(50, 16)).item() == pytest.approx(0, abs=1e-6)
    assert feature_std(torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))).item() == pytest.approx(
        1, abs=0.02
    )


@pytest.mark.parametrize(("n", "dim"), [(2, 3), (17, 8)])
def test_alignment_and_uniformity_match_the_loops(n, dim):
    z, other = F.normalize(rows(n, dim), dim=1), F.normalize(rows(n, dim, seed=1), dim=1)
    distances = [
        math.sqrt(sum((a - b) ** 2 for a, b in zip(*pair, strict=True)))
        for pair in zip(z.tolist(), other.tolist(), strict=True)
    ]
    assert alignment(z, other).item() == pytest.approx(sum(d**2 for d in distances) / n)
    assert alignment(z, other, power=1).item() == pytest.approx(sum(distances) / n)
    pairs = [(-2.0 * (z[i] - z[j]).square().sum()).exp() for i in range(n) for j in range(i)]
    torch.testing.assert_close(uniformity(z), torch.stack(pairs).mean().log())


def test_diagnostics_are_those_of_the_first_rows_without_gradient():
    z = rows(700, 16).float().requires_grad_()
    found = diagnostics(z)
    assert list(found) == ["rank_me", "feature_std"]
    assert not any(value.requires_grad for value in found.values())
    torch.testing.assert_close(found["rank_me"], rank_me(z[:512]).detach())
    torch.testing.assert_close(found["feature_std"], feature_std(z[:512]).detach())
    assert diagnostics(z.detach().bfloat16())["rank_me"].dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 4), (3,), (2, 3, 4)])
def test_diagnostics_need_two_rows(shape):
    with pytest.raises(ValueError, match="at least two images"):
        diagnostics(torch.ones(shape))
