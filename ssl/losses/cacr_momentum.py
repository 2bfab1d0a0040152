"""CACR with a momentum encoder: several query views against one key view (Zheng et al., the ImageNet form)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.ssl.losses.full_precision import full_precision, without_autocast


class MomentumCACRLoss(nn.Module):
    """Queries q_1 … q_Q of an image share its key k⁺; p_i = softmax_i(‖q_i − k⁺‖²/T) weights the queries.

    `cost="rbf"`: 2T Σ_i mean_n p_i CE(q_i·K/T), InfoNCE weighted by attraction; with one query, which has the weight 1, it is
    one of the two terms of MoCo v3's loss.
    `cost="euclidean"`: Σ_i Σ_n p_i [(1 − q_i·k⁺) − Σ_j w_j (1 − q_i·k_j)] with w = softmax_j(−(1 − q_i·k_j)/T) over the
    other keys; summed over the batch, as published. All weights carry no gradient.
    """

    def __init__(self, temperature: float = 1.0, cost: Literal["rbf", "euclidean"] = "rbf") -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be greater than 0, got {temperature}")
        if cost not in ("rbf", "euclidean"):
            raise ValueError(f"cost must be 'rbf' or 'euclidean', got {cost!r}")
        self.temperature, self.cost = temperature, cost

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """queries float[Q, N ≥ 2, D], keys float[N, D], of any norm (they are normalized here) -> scalar."""
        if queries.ndim != 3 or keys.ndim != 2 or queries.shape[1:] != keys.shape or len(keys) < 2:
            raise ValueError(
                f"expected queries [Q, N ≥ 2, D], keys [N, D]; got {list(queries.shape)}, {list(keys.shape)}"
            )
        with without_autocast(queries):
            q = F.normalize(full_precision(queries), dim=-1)
            k = F.normalize(full_precision(keys), dim=-1)
            similarity = q @ k.T  # [Q, N, N]
            positive = similarity.diagonal(dim1=1, dim2=2)  # [Q, N]
            with torch.no_grad():
                weights = ((2 - 2 * positive) / self.temperature).softmax(dim=0)
            if self.cost == "rbf":
                entropy = (similarity / self.temperature).logsumexp(dim=-1) - positive / self.temperature
                return 2 * self.temperature * (weights * entropy).mean(dim=1).sum()
            costs = 1 - similarity
            with torch.no_grad():
                logits = costs / -self.temperature
                logits.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
                closeness = logits.softmax(dim=-1)
            repulsion = -(closeness * costs).sum(dim=-1)
            return (weights * (1 - positive + repulsion)).sum()
