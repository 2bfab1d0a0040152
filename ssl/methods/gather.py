"""Differentiable all-gather of the embeddings of the global batch."""

import torch
from torch import Tensor

from wildfern.ssl.models.collectives import all_gather, all_reduce


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def all_gather_embeddings(views: Tensor) -> Tensor:
    """float[V, n, D] of this rank -> float[V, W·n, D] of all ranks, in global order.

    The backward pass sums the gradients of all ranks for this rank's rows. Engines then average gradients over ranks, so that a
    loss on the gathered batch has exactly the gradient of a single process.
    """
    if world_size() == 1:
        return views
    return all_gather(views).transpose(0, 1).flatten(1, 2)


@torch.no_grad()
def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of a tensor over ranks, without gradient."""
    if world_size() == 1:
        return x
    total = x.clone()
    torch.distributed.all_reduce(total)
    return total / world_size()


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of a tensor over ranks, without gradient."""
    return mean_over_ranks(x) * world_size()


@torch.no_grad()
def logsumexp_over_ranks(x: Tensor) -> Tensor:
    """float[n, D] of this rank -> float[D]: the logarithm of the sum of exp(x) over the rows of all ranks, without gradient."""
    total = x.logsumexp(dim=0)
    if world_size() == 1:
        return total
    most = total.clone()
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    share = (total - most).exp()
    torch.distributed.all_reduce(share)
    return most + share.log()


def own_images(images: int) -> slice:
    """The images of a gathered batch that this rank compares with all: those of all ranks together are the whole batch.

    Where a loss takes them as `rows`, `world_size()` times its value is the loss of this rank, as in `Output`.
    """
    if world_size() == 1:
        return slice(0, images)
    rank, (size, larger) = torch.distributed.get_rank(), divmod(images, world_size())
    start = rank * size + min(rank, larger)
    return slice(start, start + size + (rank < larger))


def own_rows(x: Tensor) -> Tensor:
    """This rank's part of a tensor that is the same on all ranks: the parts of all ranks together are all its rows."""
    return x[own_images(len(x))]


def average_over_ranks(x: Tensor) -> Tensor:
    """The mean of a tensor over ranks, with gradient: engines average gradients, so a loss of it has that of a single process."""
    return x if world_size() == 1 else all_reduce(x) / world_size()


@torch.no_grad()
def logaddexp_over_ranks(x: Tensor) -> Tensor:
    """log Σ exp(x) over ranks, entry by entry, without gradient."""
    if world_size() == 1:
        return x
    return all_gather(x).logsumexp(dim=0)
