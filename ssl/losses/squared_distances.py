"""Squared distances between embeddings, of several views with gradients written by hand: fewer passes and less memory.

`distances_of_views` and `softmin_distance` give exactly the derivatives of their values, in the precision of their input, and
cannot be differentiated twice.
"""

from itertools import product
from typing import Any

import torch
from torch import Tensor

from wildfern.ssl.losses.first_derivative import first_derivative_only
from wildfern.ssl.losses.row_blocks import block_numbers, images_of, row_blocks

# Up to this τ, exp(τ(2x·y − ‖y‖²)) of unit vectors without their mean is between e⁻⁴⁰ and e⁴⁰: a softmax needs no maximum.
_TAU_WITHOUT_MAXIMUM = 10


def distances_of_views(z: Tensor) -> Tensor:
    """‖z_xi − z_yi‖² for all views x, y of each image: float[V, N, D] -> float[V, V, N]."""
    return _DistancesOfViews.apply(z)


def softmin_distance(z: Tensor, tau: float, detach_weights: bool = False, rows: slice = slice(None)) -> Tensor:
    """Mean over pairs of views x < y and images i of Σ_{j≠i} w_ij ‖z_xi − z_yj‖², w_i = softmax_{j≠i}(−τ ‖z_xi − z_yj‖²).

    float[V, N, D] with unit rows (exponentials of much longer ones overflow) -> scalar; τ > 0. With `detach_weights` the weights
    have no gradient; with `rows`, the summands of these images i alone. Memory is that of `z`, a few times, and of two blocks
    (`row_blocks`): the gradient is computed along with the value, one block of pairs at a time.
    """
    return _SoftminDistance.apply(z, tau, detach_weights, images_of(rows, z.shape[1]))


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
    @first_derivative_only
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
    exponentials; no pass needs more than two blocks, which stay in the cache (times: docs/performance.md). A column of ones
    beside x, and of −‖y‖²/2 beside y, brings the norms and the column sums of G into the matrix products. Embeddings are taken
    relative to their mean, which changes no distance, and the rounding error is that of their differences.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, tau: float, detach_weights: bool, own: slice) -> Tensor:
        views, images, dim = z.shape
        rows, z = own.stop - own.start, z - z.mean(dim=(0, 1))
        squares = z.square().sum(dim=-1, keepdim=True)  # [V, N, 1]
        queries = torch.cat([z, torch.ones_like(squares)], dim=-1)[:, own]
        others = torch.cat([z, squares / -2], dim=-1)
        squares = squares[:, own]
        to_queries, to_others = torch.zeros_like(z[:, own]), z.new_zeros(views, dim + 1, images)
        # Several pairs of views in one block, or several blocks of rows for each pair.
        at_once = min(views - 1, max(1, block_numbers(z.device) // max(1, rows * images)))
        blocks = row_blocks(rows, images, z.device) if at_once == 1 else [slice(0, rows)]
        logits_block = z.new_empty(at_once, blocks[0].stop if blocks else 0, images)
        weights_block = torch.empty_like(logits_block)
        totals = [z.new_zeros(())]
        pairs = [(x, first) for x in range(views - 1) for first in range(x + 1, views, at_once)]
        for (x, first), block in product(pairs, blocks):
            y = others[first : first + at_once]
            query = queries[x, block].expand(len(y), -1, -1)
            place, itself = (slice(len(y)), slice(query.shape[1])), own.start + block.start
            logits = logits_block[place]
            torch.baddbmm(logits, query, y.transpose(1, 2), beta=0, alpha=2 * tau, out=logits)
            top = subtract_maximum(logits, tau, itself)
            # Not normalized: `norm` divides smaller tensors.
            weights = torch.exp(logits, out=weights_block[place])
            weights.diagonal(itself, dim1=1, dim2=2).fill_(0)
            norm = weights.sum(dim=-1, keepdim=True)
            weighted = logits.mul_(weights)
            mean_logit = weighted.sum(dim=-1, keepdim=True).div_(norm)
            totals.append((squares[x, block] - (mean_logit if top is None else mean_logit + top) / tau).sum())
            if ctx.needs_input_grad[0]:
                by_distance = weights if detach_weights else weighted.addcmul_(weights, 1 - mean_logit)
                to_queries[x, block] += torch.bmm(by_distance, y[..., :dim]).div_(norm).sum(dim=0)
                pulled = to_others[first : first + at_once]
                torch.baddbmm(pulled, (query / norm).transpose(1, 2), by_distance, out=pulled)
        count = images * views * (views - 1) / 2
        if ctx.needs_input_grad[0]:
            later = torch.arange(views - 1, -1, -1, dtype=z.dtype, device=z.device)[:, None, None]
            to_others = to_others.transpose(1, 2)
            gradient = to_others[..., dim:] * z - to_others[..., :dim]
            gradient[:, own] += later * z[:, own] - to_queries
            ctx.save_for_backward(gradient.mul_(2 / count))
        return torch.stack(totals).sum() / count

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient * ctx.saved_tensors[0], None, None, None


def subtract_maximum(logits: Tensor, tau: float, itself: int) -> Tensor | None:
    """Subtract, in place, each row's maximum [P, R, 1] over the other images, and return it; None where the softmax needs none.

    logits: float[P, R, N] of images `itself`, itself + 1, … with all N; those with themselves become 0, or stay.
    torch's maximum takes longer than the matrix product on processors with AVX-512.
    """
    if logits.device.type == "cpu" and tau <= _TAU_WITHOUT_MAXIMUM:
        return None
    diagonal = logits.diagonal(itself, dim1=1, dim2=2).fill_(-torch.inf)
    top = logits.amax(dim=-1, keepdim=True)
    logits.sub_(top)
    diagonal.fill_(0)  # any finite number: its weight is 0
    return top
