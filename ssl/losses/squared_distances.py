"""Squared distances between embeddings, of several views with gradients written by hand: fewer passes and less memory.

`distances_of_views` and `softmin_distance` give exactly the derivatives of their values, in the precision of their input, and
cannot be differentiated twice.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Below this τ, exp(τ(2x·y − ‖y‖²)) of unit vectors is between e⁻⁶⁰ and e²⁰, and a softmax needs no maximum.
_TAU_WITHOUT_MAXIMUM = 20
# Numbers in one block: 1 MiB of float32, which a core's cache holds, or 64 MiB elsewhere, for few launches.
_BLOCK = {"cpu": 2**18}
_BLOCK_ELSEWHERE = 2**24


def distances_of_views(z: Tensor) -> Tensor:
    """‖z_xi − z_yi‖² for all views x, y of each image: float[V, N, D] -> float[V, V, N]."""
    return _DistancesOfViews.apply(z)


def softmin_distance(z: Tensor, tau: float, detach_weights: bool = False) -> Tensor:
    """Mean over pairs of views x < y and images i of Σ_{j≠i} w_ij ‖z_xi − z_yj‖², w_i = softmax_{j≠i}(−τ ‖z_xi − z_yj‖²).

    float[V, N, D] with unit rows (exponentials of much longer ones overflow) -> scalar; τ > 0. With `detach_weights` the weights
    have no gradient. Memory does not grow with the number of views, beside that of `z`: the gradient is computed along with the
    value, one block of pairs at a time.
    """
    return _SoftminDistance.apply(z, tau, detach_weights)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i − y_j‖² of float[N, D] and float[M, D]: float[N, M]."""
    return x.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2 * x @ y.T


class _DistancesOfViews(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        views, images, _ = z.shape
        distances = z.new_zeros(views, views, images)
        for x in range(views - 1):
            distances[x, x + 1 :] = (z[x] - z[x + 1 :]).square_().sum(dim=-1)
            distances[x + 1 :, x] = distances[x, x + 1 :]
        return distances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        both = gradient + gradient.transpose(0, 1)  # z_x occurs in row and in column x
        of_z = torch.zeros_like(z)
        for x in range(len(z) - 1):
            pulls = (z[x] - z[x + 1 :]).mul_(both[x, x + 1 :, :, None])
            of_z[x] += pulls.sum(dim=0)
            of_z[x + 1 :] -= pulls
        return of_z.mul_(2)


class _SoftminDistance(torch.autograd.Function):
    """With a_ij = 2x_i·y_j − ‖y_j‖² the distance is d_ij = ‖x_i‖² − a_ij, and w_i = softmax_j(τ a_ij): ‖x_i‖² cancels.

    For E_i = Σ_j w_ij d_ij, G_ij = ∂E_i/∂d_ij = w_ij (1 − τ(d_ij − E_i)) = w_ij (1 + l_ij − Σ_k w_ik l_ik) with l = τ a, or w_ij
    with detached weights. Its rows have the sum 1. Then ∂/∂x_i = 2(x_i − Σ_j G_ij y_j), ∂/∂y_j = 2(y_j Σ_i G_ij − Σ_i G_ij x_i).

    Floor: for each of the V(V−1)/2 pairs of views three matrix products of 2 N² D operations (the distances, G y and Gᵀ x) and N²
    exponentials; no pass needs more than two blocks of N² numbers, which stay in the cache (times: docs/performance.md).
    A column of ones beside x, and of −‖y‖²/2 beside y, brings the norms and the column sums of G into the matrix products.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, tau: float, detach_weights: bool) -> Tensor:
        views, images, dim = z.shape
        squares = z.square().sum(dim=-1, keepdim=True)  # [V, N, 1]
        queries = torch.cat([z, torch.ones_like(squares)], dim=-1)
        others = torch.cat([z, squares / -2], dim=-1)
        to_queries, to_others = torch.zeros_like(z), z.new_zeros(views, dim + 1, images)
        at_once = min(views - 1, max(1, _BLOCK.get(z.device.type, _BLOCK_ELSEWHERE) // images**2))
        logits_block = z.new_empty(at_once, images, images)
        weights_block = torch.empty_like(logits_block)
        total = z.new_zeros(())
        for x in range(views - 1):
            for first in range(x + 1, views, at_once):
                y = others[first : first + at_once]
                query = queries[x].expand(len(y), -1, -1)
                logits = logits_block[: len(y)].baddbmm_(query, y.transpose(1, 2), beta=0, alpha=2 * tau)
                top = _subtract_maximum(logits, tau)
                # Not normalized: `norm` divides smaller tensors.
                weights = torch.exp(logits, out=weights_block[: len(y)])
                weights.diagonal(dim1=1, dim2=2).fill_(0)
                norm = weights.sum(dim=-1, keepdim=True)
                weighted = logits.mul_(weights)
                mean_logit = weighted.sum(dim=-1, keepdim=True).div_(norm)
                total += (squares[x] - (mean_logit if top is None else mean_logit + top) / tau).sum()
                if ctx.needs_input_grad[0]:
                    by_distance = weights if detach_weights else weighted.addcmul_(weights, 1 - mean_logit)
                    to_queries[x] += torch.bmm(by_distance, y[..., :dim]).div_(norm).sum(dim=0)
                    to_others[first : first + at_once].baddbmm_((query / norm).transpose(1, 2), by_distance)
        count = images * views * (views - 1) / 2
        if ctx.needs_input_grad[0]:
            later = torch.arange(views - 1, -1, -1, dtype=z.dtype, device=z.device)[:, None, None]
            to_others = to_others.transpose(1, 2)
            gradient = (later + to_others[..., dim:]) * z - to_queries - to_others[..., :dim]
            ctx.save_for_backward(gradient.mul_(2 / count))
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.saved_tensors[0], None, None


def _subtract_maximum(logits: Tensor, tau: float) -> Tensor | None:
    """Subtract, in place, each row's maximum [P, N, 1] off the diagonal, and return it; None where the softmax needs none.

    torch's maximum takes longer than the matrix product on processors with AVX-512.
    """
    if logits.device.type == "cpu" and tau <= _TAU_WITHOUT_MAXIMUM:
        return None
    diagonal = logits.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    top = logits.amax(dim=-1, keepdim=True)
    logits.sub_(top)
    diagonal.fill_(0)  # any finite number: its weight is 0
    return top
