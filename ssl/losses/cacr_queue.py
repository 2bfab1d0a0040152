"""CACR with a momentum encoder and a queue of keys (Zheng et al., the form for MoCo v2's networks)."""

import torch
from torch import Tensor, nn

from wildfern.ssl.losses.cacr import CACRTerms
from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.losses.squared_distances import squared_distances


class QueueCACRLoss(nn.Module):
    """L⁺ = α E_x Σ_{v≠x} w⁺_v ‖q_x − k_v‖² and L⁻ = −β E_x Σ_j w⁻_j ‖q_x − n_j‖², over the views x of each image.

    Positives are the keys of the image's other views, w⁺ = softmax_v(τ⁺ ‖q_x − k_v‖²). Negatives n_j are the keys of the queue
    and, with `within_batch`, the queries of the same view of the other images; w⁻ = softmax_j(−τ⁻ ‖q_x − n_j‖²) over both.
    The weights carry no gradient, the queries do on both sides of a distance. (The public code reuses the first view's products
    with the queue for all views, and lets a gradient through the weights of the queries within the batch; here neither holds.)
    Raises ValueError when α, β, τ⁺ or τ⁻ are not finite and ≥ 0.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 1.0,
        tau_pos: float = 1.0,
        tau_neg: float = 1.0,
        within_batch: bool = True,
    ) -> None:
        super().__init__()
        for name, value in {"alpha": alpha, "beta": beta, "tau_pos": tau_pos, "tau_neg": tau_neg}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        self.alpha, self.beta, self.tau_pos, self.tau_neg = alpha, beta, tau_pos, tau_neg
        self.within_batch = within_batch

    def forward(self, queries: Tensor, keys: Tensor, queue: Tensor) -> CACRTerms:
        """queries and keys float[V ≥ 2, N ≥ 2, D], queue float[Q ≥ 1, D], all with unit rows; only queries get a gradient."""
        shapes = [list(x.shape) for x in (queries, keys, queue)]
        if queries.ndim != 3 or queries.shape != keys.shape or min(queries.shape[:2]) < 2:
            raise ValueError(f"expected queries and keys of one shape [V ≥ 2, N ≥ 2, D]; got {shapes[0]}, {shapes[1]}")
        if queue.ndim != 2 or len(queue) < 1 or queue.shape[1] != queries.shape[2]:
            raise ValueError(f"expected a queue [Q ≥ 1, {queries.shape[2]}], got {shapes[2]}")
        with without_autocast(queries):
            q = full_precision(queries)
            k, old = full_precision(keys).detach(), full_precision(queue).detach()
            repulsion = torch.stack([self._repelled(view, old) for view in q]).mean()  # one view at a time: N·Q numbers
            return CACRTerms(self._attraction(q, k), -self.beta * repulsion)

    def _attraction(self, q: Tensor, k: Tensor) -> Tensor:
        distances = (q[:, None] - k[None, :]).square().sum(dim=-1)  # [query view, key view, N]
        itself = torch.eye(len(q), dtype=torch.bool, device=q.device)[:, :, None]
        weights = (self.tau_pos * distances.detach()).masked_fill(itself, -torch.inf).softmax(dim=1)
        return self.alpha * (weights * distances).sum(dim=1).mean()

    def _repelled(self, q: Tensor, queue: Tensor) -> Tensor:
        """Mean over images of Σ_j w⁻_j ‖q − n_j‖², for the queries float[N, D] of one view."""
        squares = queue.square().sum(dim=1)
        among = squared_distances(q, q) if self.within_batch else None
        with torch.no_grad():
            far = self.tau_neg * (2 * q @ queue.T - squares - q.square().sum(dim=1, keepdim=True))
            if among is not None:
                near = -self.tau_neg * among
                near.fill_diagonal_(-torch.inf)
                far = torch.cat([far, near], dim=1)
            weights = far.softmax(dim=1)
            of_queue = weights[:, : len(queue)]
            center, mass, constant = of_queue @ queue, of_queue.sum(dim=1), of_queue @ squares
        # Σ_j w_j ‖q − n_j‖² with constant weights, so that the backward pass needs none of the N·Q numbers
        distances = mass * q.square().sum(dim=1) - 2 * (q * center).sum(dim=1) + constant
        if among is not None:
            distances = distances + (weights[:, len(queue) :] * among).sum(dim=1)
        return distances.mean()
