"""Contrast of pixels of curvilinear objects with pixels of the background (FreeCOS, Shi et al., ICCV 2023)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from wildfern.ssl.losses.full_precision import full_precision, without_autocast


def mask_contrast(queries: Tensor, positives: Tensor, negatives: Tensor, temperature: float = 0.1) -> Tensor:
    """InfoNCE: the mean over q of -log(exp(q·p/τ) / (exp(q·p/τ) + Σ_n exp(q·n/τ))), a scalar.

    Rows are unit vectors: queries float[Q, D] of synthetic objects, positives float[Q, D] of objects in real images, one for each
    query, and negatives float[M, D] of the background of both, compared with every query. 0 without queries or negatives.
    """
    if not len(queries) or not len(negatives):
        return (queries.sum() + positives.sum() + negatives.sum()) * 0
    with without_autocast(queries):
        queries, positives, negatives = (full_precision(x) for x in (queries, positives, negatives))
        positive = (queries * positives).sum(dim=1, keepdim=True)
        logits = torch.cat([positive, queries @ negatives.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
