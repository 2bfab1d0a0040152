"""CACR in its pairwise form (Zheng et al., *Contrastive Attraction and Contrastive Repulsion for Representation Learning*).

Costs are squared Euclidean distances between unit vectors. Among the positives of a query the farther one weighs more, among
its negatives the closer one; the weights are softmax distributions over the same distances.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wildfern.ssl.losses.full_precision import full_precision, without_autocast


@dataclass(frozen=True)
class CACRTerms:
    """The two terms of CACR, scalars: attraction ≥ 0 to the positives and repulsion ≤ 0 from the negatives."""

    attraction: Tensor
    repulsion: Tensor

    @property
    def total(self) -> Tensor:
        """attraction + repulsion, the objective to minimize."""
        return self.attraction + self.repulsion


class CACRLoss(nn.Module):
    """L⁺ = E_x Σ_k w⁺_k α‖z_x − z_k‖² and L⁻ = −E_{x<y} Σ_{j≠i} w⁻_ij β‖z_xi − z_yj‖².

    w⁺ = softmax_k(τ⁺ ‖z_x − z_k‖²) over the K other views of the image; w⁻ = softmax_j(−τ⁻ ‖z_xi − z_yj‖²) over the other
    images of another view. Every view serves as query once; negatives are taken over the V(V−1)/2 pairs of views x < y.

    `weighted_positive=False` / `weighted_negative=False` replace the softmax by the uniform distribution;
    `detach_weights=True` stops the gradient at the weights (as the large-scale form does).
    Raises ValueError when α, β are negative or τ⁺, τ⁻ are not finite and ≥ 0.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 1.0,
        tau_pos: float = 1.0,
        tau_neg: float = 1.0,
        weighted_positive: bool = True,
        weighted_negative: bool = True,
        detach_weights: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {"alpha": alpha, "beta": beta, "tau_pos": tau_pos, "tau_neg": tau_neg}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        self.alpha, self.beta = alpha, beta
        self.tau_pos = tau_pos if weighted_positive else 0.0
        self.tau_neg = tau_neg if weighted_negative else 0.0
        self.detach_weights = detach_weights

    def forward(self, views: Tensor) -> CACRTerms:
        """float[V ≥ 2, N ≥ 2, D] with unit rows; view 0 … V−1 of image i are positives of each other."""
        if views.ndim != 3 or views.shape[0] < 2 or views.shape[1] < 2:
            raise ValueError(f"expected views of shape [V ≥ 2, N ≥ 2, D], got {list(views.shape)}")
        with without_autocast(views):
            z = full_precision(views)
            return CACRTerms(self._attraction(z), self._repulsion(z))

    def _attraction(self, z: Tensor) -> Tensor:
        views = z.shape[0]
        distances = (z[:, None] - z[None, :]).square().sum(dim=-1)  # [V, V, N]
        itself = torch.eye(views, dtype=torch.bool, device=z.device)[:, :, None]
        weights = (self.tau_pos * distances).masked_fill(itself, -torch.inf).softmax(dim=1)
        if self.detach_weights:
            weights = weights.detach()
        return self.alpha * (weights * distances).sum(dim=1).mean()

    def _repulsion(self, z: Tensor) -> Tensor:
        views, images, _ = z.shape
        norms = z.square().sum(dim=-1)
        itself = torch.eye(images, dtype=torch.bool, device=z.device)
        cost = z.new_zeros(())
        for x in range(views - 1):  # one query view at a time: V·N² numbers in memory, not V²·N²
            distances = norms[x, None, :, None] + norms[x + 1 :, None, :] - 2 * z[x] @ z[x + 1 :].transpose(1, 2)
            weights = (-self.tau_neg * distances).masked_fill(itself, -torch.inf).softmax(dim=-1)
            if self.detach_weights:
                weights = weights.detach()
            cost = cost + (weights * distances).sum()
        return -self.beta * cost / (images * views * (views - 1) / 2)
