import pytest
import torch

from wildfern.ssl.losses import koleo_loss


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "dim"), [(2, 3), (17, 8)])
def test_matches_the_plain_loop(n, dim):
    x = rows(n, dim).requires_grad_()
    unit = [row / row.norm() for row in x]
    terms = [torch.stack([(unit[i] - unit[j]).norm() for j in range(n) if j != i]).min().log() for i in range(n)]
    expected = -torch.stack(terms).mean()
    loss = koleo_loss(x)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, x)[0] for value in (loss, expected)))


def test_equal_rows_have_a_large_loss_and_a_finite_gradient():
    x = torch.ones(4, 3, requires_grad=True)
    loss = koleo_loss(x)
    loss.backward()
    assert loss > 15
    assert x.grad.isfinite().all()


def test_a_single_row_is_refused():
    with pytest.raises(ValueError, match=r"\[N ≥ 2, D\]"):
        koleo_loss(rows(1, 3))


def plain_loss(x):
    """The loss by a loop over pairs in float64, with the distance of equal rows as in `koleo_loss`."""
    unit = [row / row.norm() for row in x.double()]
    n = len(unit)
    squares = [torch.stack([(unit[i] - unit[j]).square().sum() for j in range(n) if j != i]).min() for i in range(n)]
    return -0.5 * torch.stack([(square + 1e-16).log() for square in squares]).mean()


# At 1e-7 some products differ by less than float64 resolves: another neighbor, about as near, is found.
@pytest.mark.parametrize(("spread", "rtol"), [(1e-4, 1e-6), (1e-5, 1e-6), (1e-6, 1e-6), (1e-7, 2e-4)])
@pytest.mark.parametrize("centers", [1, 4])
def test_nearly_equal_embeddings_in_float32_have_the_loss_of_float64(spread, rtol, centers):
    """One cluster, and several far apart; the pairs are those of the smallest difference, not of rounding errors."""
    near = rows(centers, 1, 48) + spread * rows(centers, 12, 48, seed=1)
    x = near.flatten(0, 1).float().requires_grad_()
    expected = plain_loss(x)
    loss = koleo_loss(x)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=rtol, atol=0)
    gradient, right = (torch.autograd.grad(value, x)[0].double() for value in (loss, expected))
    assert spread < 1e-6 or (gradient - right).norm() < 1e-5 * right.norm()
    parts = torch.stack([koleo_loss(x, rows=part) for part in (slice(0, 5), slice(5, len(x)))])
    torch.testing.assert_close(parts.sum(), loss, rtol=1e-6, atol=0)


def test_duplicates_among_nearly_equal_embeddings_are_found():
    x = (rows(1, 48) + 1e-6 * rows(20, 48, seed=1)).float()
    x[[3, 11]] = x[[17, 5]]
    torch.testing.assert_close(koleo_loss(x).double(), plain_loss(x), rtol=1e-6, atol=0)
