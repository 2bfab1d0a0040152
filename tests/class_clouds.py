"""Features of well separated classes."""

import torch
import torch.nn.functional as F

from wildfern.ssl.evaluation import Features


def points(n, classes=6, seed=0, noise=0.12, dim=10):
    """Clouds around class centers of length 3, labeled from 2."""
    generator = torch.Generator().manual_seed(seed)
    centers = F.normalize(torch.randn(classes, dim, generator=torch.Generator().manual_seed(4)), dim=1)
    y = torch.arange(n) % classes
    return Features(3 * (centers[y] + noise * torch.randn(n, dim, generator=generator)), y + 2)
