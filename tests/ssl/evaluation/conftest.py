import pytest
import torch

from wildfern.ssl.evaluation import Features


@pytest.fixture
def blobs():
    """Overlapping clouds around class centers, with features of very different scales."""

    def make(n, dim=12, classes=4, seed=0, noise=1.5):
        generator = torch.Generator().manual_seed(seed)
        centers = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
        y = torch.arange(n) % classes
        x = centers[y] + noise * torch.randn(n, dim, generator=generator)
        return Features((x * torch.logspace(-2, 2, dim) + 5).float(), y)

    return make
