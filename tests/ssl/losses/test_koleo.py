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
