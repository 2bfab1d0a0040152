"""CACR in its pairwise form (Zheng et al., *Contrastive Attraction and Contrastive Repulsion for Representation Learning*).

Costs are squared Euclidean distances between unit vectors. Among the positives of a query the farther one weighs more, among
its negatives the closer one; the weights are softmax distributions over the same distances.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.losses.row_blocks import images_of
from wildfern.ssl.losses.squared_distances import distances_of_views, softmin_distance
from wildfern.ssl.losses.weighted_potential import weighted_potential


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
    `cost="rbf"` repels by L⁻ = E_{x<y} β log E_i Σ_{j≠i} w⁻_ij exp(−t ‖z_xi − z_yj‖²), with t = `rbf_scale` (2 in the paper);
    the attraction stays Euclidean.
    `debias` is τ₊, the assumed share of positives among the negatives (0.1 in the paper): with the Euclidean cost, L⁻ becomes
    (L⁻ − τ₊ E_{x<y} ‖z_xi − z_yi‖²) / (1 − τ₊). This is the published code; removing the positives' share of L⁻ would instead
    add τ₊ β E ‖z_xi − z_yi‖², so here a larger τ₊ weakens the attraction.
    Raises ValueError when α, β are negative, τ⁺, τ⁻ are not finite and ≥ 0, t is not finite and > 0, τ₊ is not in [0, 1) or used
    with the RBF cost, or the cost is unknown.
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
        *,
        cost: Literal["euclidean", "rbf"] = "euclidean",
        rbf_scale: float = 2.0,
        debias: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in {"alpha": alpha, "beta": beta, "tau_pos": tau_pos, "tau_neg": tau_neg}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if cost not in ("euclidean", "rbf"):
            raise ValueError(f"cost must be 'euclidean' or 'rbf', got {cost!r}")
        if not 0 < rbf_scale < float("inf"):
            raise ValueError(f"rbf_scale must be finite and greater than 0, got {rbf_scale}")
        if not 0 <= debias < 1:
            raise ValueError(f"debias must be at least 0 and less than 1, got {debias}")
        if debias and cost == "rbf":
            raise ValueError(f"debias={debias} needs cost='euclidean': the debiased form has no RBF cost")
        self.alpha, self.beta = alpha, beta
        self.tau_pos = tau_pos if weighted_positive else 0.0
        self.tau_neg = tau_neg if weighted_negative else 0.0
        self.detach_weights = detach_weights
        self.cost, self.rbf_scale, self.debias = cost, rbf_scale, debias

    def forward(
        self,
        views: Tensor,
        *,
        rows: slice | None = None,
        sum_over_parts: Callable[[Tensor], Tensor] | None = None,
    ) -> CACRTerms:
        """float[V ≥ 2, N ≥ 2, D] with unit rows; view 0 … V−1 of image i are positives of each other.

        With `rows`, the summands whose query is a view of these images: the parts over any division of the images have the sums
        of the terms. The logarithm of the RBF cost is that of all parts, for which `sum_over_parts` returns the sum of a tensor
        over them, without gradient; ValueError if it is missing. Memory grows with N, not with N².
        """
        if views.ndim != 3 or views.shape[0] < 2 or views.shape[1] < 2:
            raise ValueError(f"expected views of shape [V ≥ 2, N ≥ 2, D], got {list(views.shape)}")
        if self.cost == "rbf" and rows is not None and sum_over_parts is None:
            raise ValueError(
                "cost='rbf' with rows needs sum_over_parts: its logarithm is that of the mean over all images"
            )
        with without_autocast(views):
            z = full_precision(views)
            own = images_of(rows, z.shape[1])
            positive = distances_of_views(z[:, own])  # [V, V, rows]
            attraction = self._attraction(positive) / z[..., 0].numel()
            if self.cost == "rbf":
                return CACRTerms(attraction, self._log_potential(z, own, sum_over_parts))
            return CACRTerms(attraction, self._repulsion(z, own, positive))

    def _attraction(self, distances: Tensor) -> Tensor:
        """Sum over the images and views of α Σ_k w⁺_k d_k, for distances float[V, V, rows]."""
        itself = torch.eye(len(distances), dtype=torch.bool, device=distances.device)[:, :, None]
        weights = (self.tau_pos * distances).masked_fill(itself, -torch.inf).softmax(dim=1)
        if self.detach_weights:
            weights = weights.detach()
        return self.alpha * (weights * distances).sum()

    def _repulsion(self, z: Tensor, own: slice, positive: Tensor) -> Tensor:
        tau = self.tau_neg
        cost = softmin_distance(z, tau, self.detach_weights, own) if tau else mean_distance(z, positive, own)
        if not self.debias:
            return -self.beta * cost
        views, images, _ = z.shape
        to_positive = positive.sum() / (views * (views - 1) * images)
        return -(self.beta * cost + self.debias * to_positive) / (1 - self.debias)

    def _log_potential(self, z: Tensor, own: slice, sum_over_parts: Callable[[Tensor], Tensor] | None) -> Tensor:
        potential = weighted_potential(z, self.tau_neg, self.rbf_scale, self.detach_weights, own)
        if sum_over_parts is None:
            return self.beta * potential.log().mean()
        # For a whole Φ = Σ φ, the parts φ/Φ + (log Φ − 1) · share have the sum log Φ, and their gradients that of log Φ.
        whole, share = sum_over_parts(potential.detach()), (own.stop - own.start) / z.shape[1]
        return self.beta * (potential / whole + share * (whole.log() - 1)).mean()


def mean_distance(z: Tensor, positive: Tensor, own: slice) -> Tensor:
    """Mean of ‖z_xi − z_yj‖² over x < y and i ≠ j, the limit of `softmin_distance` at τ = 0, without any pair of images.

    The summands of the images i in `own` alone, R of them. z float[V, N, D] and positive float[V, V, R], the distances
    ‖z_xi − z_yi‖², -> scalar. All pairs i, j have the sum N Σ_i ‖x_i‖² + R Σ_j ‖y_j‖² − 2 (Σ_i x_i)·(Σ_j y_j).
    """
    views, images, _ = z.shape
    rows = own.stop - own.start
    later = torch.arange(views - 1, -1, -1, dtype=z.dtype, device=z.device)  # views y after each view x
    sums, own_sums = z.sum(dim=1), z[:, own].sum(dim=1)  # [V, D]
    products = (own_sums * (sums.sum(dim=0) - sums.cumsum(dim=0))).sum()  # Σ_{x<y} own_sums_x · sums_y
    squares, own_squares = z.square().sum(dim=(1, 2)), z[:, own].square().sum(dim=(1, 2))  # [V]
    total = images * (later * own_squares).sum() + rows * (later.flip(0) * squares).sum() - 2 * products
    return (total - positive.sum() / 2) / (images * (images - 1) * views * (views - 1) / 2)
