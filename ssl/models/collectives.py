"""Differentiable all-reduce and all-gather, also inside compiled networks."""

import torch
from torch import Tensor
from torch.autograd import Function


class _AllReduce(Function):
    @staticmethod
    def forward(ctx: Function, x: Tensor) -> Tensor:
        return _sum(x)

    @staticmethod
    def backward(ctx: Function, gradient: Tensor) -> Tensor:
        return _sum(gradient)


class _AllGather(Function):
    @staticmethod
    def forward(ctx: Function, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, x)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Function, gradient: Tensor) -> Tensor:
        own = torch.empty_like(gradient[0], memory_format=torch.contiguous_format)
        torch.distributed.reduce_scatter_tensor(own, gradient.contiguous().flatten(0, 1))
        return own


@torch.compiler.disable
def all_reduce(x: Tensor) -> Tensor:
    """The sum of `x` over ranks; its gradient is the sum of the gradients of all ranks."""
    return _AllReduce.apply(x)


@torch.compiler.disable
def all_gather(x: Tensor) -> Tensor:
    """float[n, ...] of each rank -> float[W, n, ...] on all ranks; its gradient is summed over ranks."""
    return _AllGather.apply(x.contiguous())


def _sum(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total
