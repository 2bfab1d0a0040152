"""Losses with gradients written by hand refuse a gradient of their gradient."""

import pytest
import torch
from torch.nn import functional as F

from wildfern.ssl.losses import CACRLoss, NTXentLoss
from wildfern.ssl.losses.info_nce import info_nce

LOSSES = {
    "ntxent": lambda z: NTXentLoss(0.1)(z),
    "info_nce": lambda z: info_nce(z[0], z[1], 0.1),
    "cacr": lambda z: CACRLoss()(z).total,
    "cacr rbf": lambda z: CACRLoss(cost="rbf")(z).total,
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_derivative_is_refused(name):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 4), torch.eye(4, requires_grad=True)
    loss = LOSSES[name](F.normalize(x @ weight, dim=-1))
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(loss, weight, create_graph=True)


@pytest.mark.parametrize("name", LOSSES)
def test_the_first_one_is_not(name):
    torch.manual_seed(0)
    z = F.normalize(torch.randn(2, 5, 4), dim=-1).requires_grad_()
    LOSSES[name](z).backward()
    assert z.grad.isfinite().all()
