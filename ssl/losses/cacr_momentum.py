"""CACR with a momentum encoder: several query views against one key view (Zheng et al., the ImageNet form)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.losses.log_sum_exp import log_sum_exp, softmax_mean
from wildfern.ssl.losses.row_blocks import images_of


class MomentumCACRLoss(nn.Module):
    """Queries q_1 … q_Q of an image share its key k⁺; p_i = softmax_i(‖q_i − k⁺‖²/T) weights the queries.

    `cost="rbf"`: 2T Σ_i mean_n p_i CE(q_i·K/T), InfoNCE weighted by attraction; with one query, which has the weight 1, it is
    one of the two terms of MoCo v3's loss.
    `cost="euclidean"`: Σ_i Σ_n p_i [(1 − q_i·k⁺) − Σ_j w_j (1 − q_i·k_j)] with w = softmax_j(−(1 − q_i·k_j)/T) over the
    other keys; summed over the batch, as published. Neither the weights nor the keys get a gradient.
    """

    def __init__(self, temperature: float = 1.0, cost: Literal["rbf", "euclidean"] = "rbf") -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be greater than 0, got {temperature}")
        if cost not in ("rbf", "euclidean"):
            raise ValueError(f"cost must be 'rbf' or 'euclidean', got {cost!r}")
        self.temperature, self.cost = temperature, cost

    def forward(self, queries: Tensor, keys: Tensor, *, rows: slice | None = None) -> Tensor:
        """queries float[Q, N ≥ 2, D], keys float[N, D], of any norm (they are normalized here) -> scalar.

        With `rows`, the summands of the queries of these images alone: the parts over any division of the images have the sum
        of the loss. Memory grows with Q·N, not with N².
        """
        if queries.ndim != 3 or keys.ndim != 2 or queries.shape[1:] != keys.shape or len(keys) < 2:
            raise ValueError(
                f"expected queries [Q, N ≥ 2, D], keys [N, D]; got {list(queries.shape)}, {list(keys.shape)}"
            )
        with without_autocast(queries):
            own, scale = images_of(rows, len(keys)), 1 / self.temperature
            q = F.normalize(full_precision(queries[:, own]), dim=-1)
            k = F.normalize(full_precision(keys), dim=-1).detach()
            positive = (q * k[own]).sum(dim=-1)  # [Q, rows]
            with torch.no_grad():
                weights = (scale * (2 - 2 * positive)).softmax(dim=0)
            if self.cost == "rbf":
                log_denominators = log_sum_exp(q.flatten(0, 1), k, scale, weights=weights.flatten(), unit_rows=True)
                return 2 * (self.temperature * log_denominators - (weights * positive).sum()) / len(k)
            itself = torch.arange(own.start, own.stop, device=q.device).repeat(len(q))
            centers = softmax_mean(q.flatten(0, 1), k, scale, without=itself, unit_rows=True).view_as(q)
            repulsion = (q * centers).sum(dim=-1) - 1  # −Σ_j w_j (1 − q·k_j), since the weights have the sum 1
            return (weights * (1 - positive + repulsion)).sum()
