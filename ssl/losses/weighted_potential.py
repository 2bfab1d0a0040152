"""Gaussian potential between the images of different views, weighted by distance, with its gradient written by hand."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wildfern.ssl.losses.first_derivative import first_derivative_only
from wildfern.ssl.losses.row_blocks import images_of, row_blocks
from wildfern.ssl.losses.squared_distances import subtract_maximum


def weighted_potential(
    z: Tensor, tau: float, scale: float, detach_weights: bool = False, rows: slice = slice(None)
) -> Tensor:
    """Mean over images i of φ_i = Σ_{j≠i} w_ij exp(−t ‖z_xi − z_yj‖²), w_i = softmax_{j≠i}(−τ ‖z_xi − z_yj‖²), t = `scale`.

    float[V, N, D] with unit rows -> float[V(V−1)/2], one for each pair of views x < y; τ ≥ 0. With `detach_weights` the weights
    have no gradient; with `rows`, the summands of these images i alone. Memory is that of `z`, a few times, and of three blocks
    (`row_blocks`): the backward pass computes the blocks again, since a pair's gradient depends on its whole sum if a logarithm
    follows. It is exact, in the precision of the input, and cannot be differentiated twice.
    """
    return _WeightedPotential.apply(z, tau, scale, detach_weights, images_of(rows, z.shape[1]))


class _Block(NamedTuple):
    """Some images of one pair of views, as queries. All but `potential` are overwritten by the next block."""

    pair: tuple[int, int, int]  # its number and both views
    places: slice
    weights: Tensor  # float[R, N], not normalized
    weighted: Tensor  # float[R, N]: weights · exp(−t d)
    norm: Tensor  # float[R, 1]
    potential: Tensor  # float[R, 1]: φ


class _WeightedPotential(torch.autograd.Function):
    """∂φ_i/∂d_ij = −w_ij ((t + τ) u_ij − τ φ_i) with u = exp(−t d), or −t w_ij u_ij with detached weights.

    Embeddings are taken relative to their mean, as in `softmin_distance`.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, tau: float, scale: float, detach_weights: bool, own: slice) -> Tensor:
        z = z - z.mean(dim=(0, 1))
        ctx.save_for_backward(z)
        ctx.settings = tau, scale, detach_weights, own
        views, images, _ = z.shape
        sums: list[list[Tensor]] = [[z.new_zeros(())] for _ in range(views * (views - 1) // 2)]
        for block in _blocks(z, tau, scale, own):
            sums[block.pair[0]].append(block.potential.sum())
        return torch.stack([torch.stack(parts).sum() for parts in sums]) / images

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (z,), (tau, scale, detach_weights, own) = ctx.saved_tensors, ctx.settings
        with_ones = torch.cat([z, torch.ones_like(z[..., :1])], dim=-1)
        pulls = torch.zeros_like(with_ones)  # for G = ∂/∂d: Σ G z of the other side, and Σ G
        for block in _blocks(z, tau, scale, own):
            number, x, y = block.pair
            by_distance = block.weighted.mul_(scale if detach_weights else scale + tau)
            if not detach_weights:
                by_distance.addcmul_(block.weights, -tau * block.potential)
            factor = -gradient[number] / block.norm
            pulls[x, block.places] += torch.mm(by_distance, with_ones[y]).mul_(factor)
            torch.addmm(pulls[y], by_distance.T, with_ones[x, block.places] * factor, out=pulls[y])
        of_z = (pulls[..., -1:] * z).sub_(pulls[..., :-1]).mul_(2 / z.shape[1])
        return of_z, None, None, None, None


def _blocks(z: Tensor, tau: float, scale: float, own: slice) -> Iterator[_Block]:
    views, images, _ = z.shape
    halves = z.square().sum(dim=-1, keepdim=True) / -2
    queries = torch.cat([z, torch.ones_like(halves), halves], dim=-1)
    others = torch.cat([z, halves, torch.ones_like(halves)], dim=-1)
    blocks = row_blocks(own.stop - own.start, images, z.device)
    buffers = z.new_empty(3, blocks[0].stop if blocks else 0, images)
    pairs = [(x, y) for x in range(views) for y in range(x + 1, views)]
    for number, (x, y) in enumerate(pairs):
        for rows in blocks:
            places = slice(own.start + rows.start, own.start + rows.stop)
            products, weights, weighted = buffers[:, : rows.stop - rows.start]
            torch.mm(queries[x, places], others[y].T, out=products)  # x·y − ‖x‖²/2 − ‖y‖²/2 = −d/2
            torch.mul(products, 2 * tau, out=weights)
            subtract_maximum(weights[None], tau, places.start)
            weights.exp_().diagonal(places.start).fill_(0)
            norm = weights.sum(dim=1, keepdim=True)
            torch.mul(weights, products.mul_(2 * scale).exp_(), out=weighted)
            yield _Block((number, x, y), places, weights, weighted, norm, weighted.sum(dim=1, keepdim=True) / norm)
