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
    other keys; summed over the batch, as published. Neither the weights nor the keys get a gradient.
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
            k = F.normalize(full_precision(keys), dim=-1).detach()
            positive = (q * k).sum(dim=-1)  # [Q, N]
            with torch.no_grad():
                weights = ((2 - 2 * positive) / self.temperature).softmax(dim=0)
            if self.cost == "rbf":
                entropy = torch.stack([self._log_sum(view, k) for view in q]) - positive / self.temperature
                return 2 * self.temperature * (weights * entropy).mean(dim=1).sum()
            centers = torch.stack([self._mean_key(view, k, without_own=True)[0] for view in q])
            repulsion = (q * centers).sum(dim=-1) - 1  # −Σ_j w_j (1 − q·k_j), since the weights have the sum 1
            return (weights * (1 - positive + repulsion)).sum()

    def _log_sum(self, q: Tensor, k: Tensor) -> Tensor:
        """log Σ_j exp(q·k_j/T) for float[N, D]: float[N]. Its gradient at q is the mean key / T, so no N² numbers are kept."""
        center, value = self._mean_key(q, k, without_own=False)
        return value + ((q - q.detach()) * center).sum(dim=-1) / self.temperature  # adds 0, with the gradient

    @torch.no_grad()
    def _mean_key(self, q: Tensor, k: Tensor, without_own: bool) -> tuple[Tensor, Tensor]:
        """Σ_j w_j k_j for w = softmax_j(q·k_j/T), float[N, D], and the logarithm of the softmax's denominator, float[N]."""
        logits = (q / self.temperature) @ k.T
        if without_own:
            logits.fill_diagonal_(-torch.inf)
        # of unit vectors at most 1/T; below T = 0.05 the exponentials could all be 0
        top = 1 / self.temperature if self.temperature >= 0.05 else logits.amax(dim=1, keepdim=True)
        potential = logits.sub_(top).exp_()
        norm = potential.sum(dim=1, keepdim=True)
        return (potential @ k).div_(norm), (norm.log() + top)[:, 0]
