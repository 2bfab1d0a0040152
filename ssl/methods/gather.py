"""Embeddings of the whole global batch on every rank, with gradients that come home."""

import torch
from torch import Tensor

from wildfern.ssl.models.collectives import all_gather


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def all_gather_embeddings(views: Tensor) -> Tensor:
    """float[V, n, D] of this rank -> float[V, W·n, D] of all ranks, in global order.

    The backward pass sums what every rank's loss says about this rank's rows; with gradients then averaged over ranks, as all
    engines do, a loss computed on the gathered batch has exactly the gradient of one process.
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
