"""Measures of representation collapse that need no labels: pure functions of one batch of embeddings."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows that `diagnostics` uses: the singular values of 512 × 2048 take 0.1 s on one CPU core.
ROWS = 512


@torch.no_grad()
def diagnostics(features: Tensor) -> dict[str, Tensor]:
    """`rank_me` and `feature_std` of the first 512 rows of float[N, D], for one logged step; computed in float32.

    Compare them between runs with the same batch size only. Raises ValueError for anything but [N, D] with N >= 2.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"diagnostics need features [N, D] of at least two images, got {list(features.shape)}")
    rows = features[:ROWS].float()
    return {"rank_me": rank_me(rows), "feature_std": feature_std(rows)}


def rank_me(features: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Effective rank of float[N, D]: exp of the entropy of its normalized singular values; scalar in about [1, min(N, D)].

    RankMe (Garrido et al., 2023, eq. 1). Compare it between runs at the same N and D only.
    """
    singular = torch.linalg.svdvals(features.float() if features.dtype != torch.float64 else features)
    p = singular / singular.sum().clamp(min=epsilon) + epsilon
    return (-(p * p.log()).sum()).exp()


def feature_std(features: Tensor) -> Tensor:
    """Mean standard deviation of the entries of l2-normalized rows float[N, D], times √D: 0 collapsed, 1 uniform.

    The check of SimSiam (Chen & He, 2021, section 4.1), lightly's `std_of_l2_normalized` without its dependence on D.
    """
    rows = F.normalize(features, dim=1)
    return rows.std(dim=0).mean() * features.shape[1] ** 0.5


def alignment(anchors: Tensor, positives: Tensor, power: float = 2.0) -> Tensor:
    """Mean distance between two views of each image, raised to `power`; both float[N, D] with unit rows.

    Wang & Isola (2020), eq. 1; scalar ≥ 0.
    """
    return (anchors - positives).norm(dim=1).pow(power).mean()


def uniformity(embeddings: Tensor, t: float = 2.0) -> Tensor:
    """Log of the mean Gaussian potential over distinct pairs of float[N, D] with unit rows; scalar ≤ 0.

    Wang & Isola (2020), eq. 2.
    """
    return torch.pdist(embeddings).square().mul(-t).exp().mean().log()
