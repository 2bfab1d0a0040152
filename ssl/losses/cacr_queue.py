"""CACR with a momentum encoder and a queue of keys (Zheng et al., the form for MoCo v2's networks)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.ssl.losses.cacr import CACRTerms
from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.losses.log_sum_exp import softmax_blocks
from wildfern.ssl.losses.row_blocks import images_of


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

    def forward(self, queries: Tensor, keys: Tensor, queue: Tensor, *, rows: slice | None = None) -> CACRTerms:
        """queries and keys float[V ≥ 2, N ≥ 2, D], queue float[Q ≥ 1, D], all with unit rows; only queries get a gradient.

        With `rows`, the summands in which x is of these images: the parts over any division of the images have the sums of the
        terms. Memory grows with N and Q, not with N·Q or N².
        """
        shapes = [list(x.shape) for x in (queries, keys, queue)]
        if queries.ndim != 3 or queries.shape != keys.shape or min(queries.shape[:2]) < 2:
            raise ValueError(f"expected queries and keys of one shape [V ≥ 2, N ≥ 2, D]; got {shapes[0]}, {shapes[1]}")
        if queue.ndim != 2 or len(queue) < 1 or queue.shape[1] != queries.shape[2]:
            raise ValueError(f"expected a queue [Q ≥ 1, {queries.shape[2]}], got {shapes[2]}")
        with without_autocast(queries):
            q = full_precision(queries)
            k, old = full_precision(keys).detach(), full_precision(queue).detach()
            own = images_of(rows, q.shape[1])
            repulsion = torch.stack([self._repelled(view, old, own) for view in q]).sum() / q[..., 0].numel()
            return CACRTerms(self._attraction(q[:, own], k[:, own]) / q[..., 0].numel(), -self.beta * repulsion)

    def _attraction(self, q: Tensor, k: Tensor) -> Tensor:
        """Sum over views x and images of α Σ_v w⁺_v ‖q_x − k_v‖²."""
        distances = (q[:, None] - k[None, :]).square().sum(dim=-1)  # [query view, key view, rows]
        itself = torch.eye(len(q), dtype=torch.bool, device=q.device)[:, :, None]
        weights = (self.tau_pos * distances.detach()).masked_fill(itself, -torch.inf).softmax(dim=1)
        return self.alpha * (weights * distances).sum()

    def _repelled(self, q: Tensor, queue: Tensor, own: slice) -> Tensor:
        """Sum over the images `own` of Σ_j w⁻_j ‖q − n_j‖², for the queries float[N, D] of one view.

        With constant weights, Σ_ij w_ij ‖q_i − n_j‖² = Σ_i (‖q_i‖² − 2 q_i·Σ_j w_ij n_j + Σ_j w_ij ‖n_j‖²) has the gradients
        2 (q_i − Σ_j w_ij n_j) and 2 (n_j Σ_i w_ij − Σ_i w_ij q_i). A column of ones beside q, and of −‖n‖²/2 beside n, brings the
        norms and the sums of the weights into the matrix products.
        """
        queries = F.pad(q[own], (0, 1), value=1.0)
        with torch.no_grad():
            negatives = torch.cat([queue, q]) if self.within_batch else queue
            negatives = torch.cat([negatives, negatives.square().sum(dim=1, keepdim=True) / -2], dim=1)
            itself = torch.arange(own.start, own.stop, device=q.device) + len(queue) if self.within_batch else None
            to_queries, to_others = torch.empty_like(queries), q.new_zeros(len(q), queries.shape[1])
            for block in softmax_blocks(2 * self.tau_neg * queries, negatives, itself):
                to_queries[block.rows] = torch.mm(block.potential, negatives) / block.norm
                if self.within_batch:
                    weights = block.potential[:, len(queue) :].T
                    torch.addmm(to_others, weights, queries[block.rows] / block.norm, out=to_others)
        distances = q[own].square().sum() - 2 * (queries * to_queries).sum()
        if not self.within_batch:
            return distances
        as_negatives = (to_others[:, -1] * q.square().sum(dim=1)).sum() - 2 * (to_others[:, :-1] * q).sum()
        return distances + (as_negatives - as_negatives.detach())  # adds 0, with the gradient
