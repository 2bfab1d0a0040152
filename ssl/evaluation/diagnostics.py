"""Measures of representation collapse that need no labels: pure functions of one batch of embeddings."""

import torch
from torch import Tensor

from wildfern.ssl.evaluation.unit_rows import unit_rows

# Rows that `diagnostics` uses: the singular values of 512 × 2048 take 0.1 s on one CPU core.
ROWS = 512


@torch.no_grad()
def diagnostics(features: Tensor | None, embeddings: Tensor | None = None) -> dict[str, Tensor]:
    """Signs of collapse of the first 512 images of a batch, for one logged step; computed in float32.

    `rank_me` and `feature_std` of features float[N, D]; `alignment` and `uniformity` of the normalized embeddings float[V, N, D]
    of two or more views: of the first two, and of the first. What is None is left out. Compare them between runs with the same
    batch size only. Raises ValueError for other shapes, or for fewer than two images.
    """
    found = {}
    if features is not None:
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"diagnostics need features [N, D] of at least two images, got {list(features.shape)}")
        rows = features[:ROWS].float()
        found |= {"rank_me": rank_me(rows), "feature_std": feature_std(rows)}
    if embeddings is not None:
        if embeddings.ndim != 3 or embeddings.shape[0] < 2 or embeddings.shape[1] < 2:
            raise ValueError(
                f"diagnostics need embeddings [V, N, D] of two views of two images, got {list(embeddings.shape)}"
            )
        first, second = unit_rows(embeddings[:2, :ROWS].float())
        found |= {"alignment": alignment(first, second), "uniformity": uniformity(first)}
    return found


def rank_me(features: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Effective rank of float[N, D]: exp of the entropy of its normalized singular values; scalar in about [1, min(N, D)].

    RankMe (Garrido et al., 2023, eq. 1). Compare it between runs at the same N and D only. NaN if an entry is not finite.
    """
    if not features.isfinite().all():
        return features.new_full((), torch.nan)
    singular = torch.linalg.svdvals(features.float() if features.dtype != torch.float64 else features)
    p = singular / singular.sum().clamp(min=epsilon) + epsilon
    return (-(p * p.log()).sum()).exp()


def feature_std(features: Tensor) -> Tensor:
    """Mean standard deviation of the entries of l2-normalized rows float[N, D], times √D: 0 collapsed, 1 uniform.

    The check of SimSiam (Chen & He, 2021, section 4.1), lightly's `std_of_l2_normalized` without its dependence on D.
    """
    rows = unit_rows(features)
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
