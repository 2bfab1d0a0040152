"""VICReg's loss against a plain loop and lightly's, with its gradient, and without operations of unknown shape."""

import pytest
import torch
from lightly.loss import VICRegLoss as LightlyVICRegLoss

from wildfern.ssl.losses.vicreg import VICRegLoss

N, D = 6, 4


def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, N, D, dtype=torch.float64, generator=generator)


def test_loss_is_equation_6():
    z = pair()
    invariance = sum((z[0, n, d] - z[1, n, d]) ** 2 for n in range(N) for d in range(D)) / (N * D)
    variance, covariance = 0.0, 0.0
    for v in range(2):
        centered = z[v] - z[v].mean(dim=0)
        for i in range(D):
            deviation = ((centered[:, i] ** 2).sum() / (N - 1) + 1e-4).sqrt()
            variance += max(0.0, 1 - deviation) / D / 2
            for j in range(D):
                if i != j:
                    covariance += ((centered[:, i] * centered[:, j]).sum() / (N - 1)) ** 2 / D
    expected = 25 * invariance + 10 * variance + 2 * covariance
    torch.testing.assert_close(VICRegLoss(25.0, 10.0, 2.0)(z), expected)


def test_loss_and_gradient_equal_those_of_lightly():
    ours, theirs = pair().requires_grad_(), pair().requires_grad_()
    one, two = VICRegLoss(25.0, 10.0, 2.0)(ours), LightlyVICRegLoss(25.0, 10.0, 2.0)(theirs[0], theirs[1])
    torch.testing.assert_close(one, two)
    one.backward()
    two.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("shape", [(3, N, D), (2, 1, D), (2, D)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected views of shape"):
        VICRegLoss()(torch.zeros(shape))
