"""A frozen network of whose weights each rank keeps a part: each module gathers its own ones for its forward pass.

The parts are those of DeepSpeed's ZeRO stage 3, so that a moving average of a trained network needs no communication.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

KEPT_WHOLE = (
    100_000  # elements of the largest weight that every rank keeps, as DeepSpeed does: gathering it takes too long
)


@dataclass
class Part:
    """This rank's part of a weight of `shape`: elements from `start` on, `padded` with zeros to the same number on every rank."""

    shape: torch.Size
    start: int
    count: int
    padded: Tensor

    @property
    def own(self) -> Tensor:
        """The elements of the weight, without padding."""
        return self.padded[: self.count]


def part_of(weight: Tensor) -> Part | None:
    """This rank's part of a weight of a module that `shard` has sharded; None for other weights."""
    return getattr(weight, "_part", None)


def shard(module: nn.Module, rank: int, world_size: int) -> None:
    """Replace each weight of a network, the same on all ranks, by this rank's part, but for small ones.

    A module's weights are whole while its forward pass is computed; no other module may use them. All ranks must compute the same
    modules in the same order. Weights must not need gradients.
    """
    for inner, weights in list(sharded_weights(module)):
        for weight in weights:
            if part_of(weight) is None:  # a weight may be of several modules
                _split(weight, rank, world_size)
        inner.register_forward_pre_hook(_hook(weights, _gather))
        inner.register_forward_hook(_hook(weights, _release), always_call=True)


def sharded_weights(module: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Parameter]]]:
    """The modules whose weights `shard` splits, with these weights."""
    for inner in module.modules():
        if weights := [weight for weight in inner.parameters(recurse=False) if weight.numel() > KEPT_WHOLE]:
            yield inner, weights


@contextmanager
def gathered(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """Sharded weights whole inside the block, on every rank; changes of them are lost."""
    weights = [weight for weight in weights if part_of(weight) is not None]
    for weight in weights:
        _gather(weight)
    try:
        yield
    finally:
        for weight in weights:
            _release(weight)


def _split(weight: nn.Parameter, rank: int, world_size: int) -> None:
    assert not weight.requires_grad, "weights are sharded without their gradients"
    length = -(-weight.numel() // world_size)
    start = min(rank * length, weight.numel())
    count = min(length, weight.numel() - start)
    padded = weight.new_zeros(length)
    padded[:count] = weight.detach().flatten()[start : start + count]
    weight._part = Part(weight.shape, start, count, padded)  # type: ignore[attr-defined]
    _release(weight)


def _hook(weights: list[nn.Parameter], change: Callable[[nn.Parameter], None]) -> Callable[..., None]:
    @torch.compiler.disable
    def changed(*_: object) -> None:
        for weight in weights:
            change(weight)

    return changed


@torch.no_grad()
def _gather(weight: nn.Parameter) -> None:
    part = weight._part  # type: ignore[attr-defined]
    whole = part.padded.new_empty(torch.distributed.get_world_size() * len(part.padded))
    torch.distributed.all_gather_into_tensor(whole, part.padded)
    weight.data = whole[: part.shape.numel()].view(part.shape)


def _release(weight: nn.Parameter) -> None:
    weight.data = weight.new_empty(0)
