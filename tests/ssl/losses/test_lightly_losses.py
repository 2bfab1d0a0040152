"""The losses of lightly that methods use as they are, against plain loops written from the papers."""

import torch
from lightly.loss import BarlowTwinsLoss

N, D = 6, 4


def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, N, D, dtype=torch.float64, generator=generator)


def test_barlow_twins_is_equation_1_and_2():
    z = pair()
    mean, variance = z.mean(dim=1), z.var(dim=1, unbiased=False)
    expected = 0.0
    for i in range(D):
        for j in range(D):
            c = 0.0
            for n in range(N):
                a = (z[0, n, i] - mean[0, i]) / (variance[0, i] + 1e-5).sqrt()
                b = (z[1, n, j] - mean[1, j]) / (variance[1, j] + 1e-5).sqrt()
                c += a * b / N
            expected += (1 - c) ** 2 if i == j else 0.3 * c**2
    torch.testing.assert_close(BarlowTwinsLoss(0.3)(z[0], z[1]), expected)
