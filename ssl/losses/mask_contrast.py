"""Contrast of pixels of curvilinear objects with pixels of the background (FreeCOS, Shi et al., ICCV 2023)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from wildfern.ssl.losses.full_precision import full_precision, without_autocast


def mask_contrast(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    temperature: float = 0.1,
    pairs: Tensor | None = None,
    counted: Tensor | None = None,
) -> Tensor:
    """InfoNCE: the mean over q of -log(exp(q·p/τ) / (exp(q·p/τ) + Σ_n exp(q·n/τ))), a scalar.

    Rows are unit vectors: queries float[Q, D] of synthetic objects, positives float[Q, D] of objects in real images, one for each
    query, and negatives float[M, D] of the background of both, compared with every query. Only the rows of `pairs` bool[Q] and of
    `counted` bool[M] take part, by default all; the loss is 0 without a pair or without negatives.
    """
    with without_autocast(queries):
        queries, positives, negatives = (full_precision(x) for x in (queries, positives, negatives))
        positive = (queries * positives).sum(dim=1, keepdim=True)
        others = queries @ negatives.T
        if counted is not None:
            others = others.masked_fill(~counted, -torch.inf)
        logits = torch.cat([positive, others], dim=1) / temperature
        target = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        each = F.cross_entropy(logits, target, reduction="none")
        taking_part = torch.ones_like(each) if pairs is None else pairs.to(each.dtype)
        return (each * taking_part).sum() / taking_part.sum().clamp(min=1)
