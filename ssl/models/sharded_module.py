"""A frozen network of whose weights each rank keeps a part: they are gathered for the forward pass, unit by unit.

The parts are those of DeepSpeed's ZeRO stage 3, so that a moving average of a trained network needs no communication.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

UNIT = 2**25  # weights that are gathered at a time, unless a single module holds more itself


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
    """Replace each weight of a network, the same on all ranks, by this rank's part, and gather units before they are computed.

    A unit is a module of at most `UNIT` weights, or the weights that a larger one holds itself; they are released after its
    forward pass. All ranks must compute the same modules in the same order. Weights must not need gradients.
    """
    for weight in module.parameters():
        assert not weight.requires_grad, "weights are sharded without their gradients"
        length = -(-weight.numel() // world_size)
        start = min(rank * length, weight.numel())
        count = min(length, weight.numel() - start)
        padded = weight.new_zeros(length)
        padded[:count] = weight.detach().flatten()[start : start + count]
        weight._part = Part(weight.shape, start, count, padded)  # type: ignore[attr-defined]
        _release(weight)
    for unit, weights in _units(module):
        unit.register_forward_pre_hook(_hook(weights, _gather))
        unit.register_forward_hook(_hook(weights, _release), always_call=True)


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


def _units(module: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Parameter]]]:
    if sum(weight._part.shape.numel() for weight in module.parameters()) <= UNIT:
        if weights := list(module.parameters()):
            yield module, weights
        return
    if weights := list(module.parameters(recurse=False)):
        yield module, weights
    for child in module.children():
        yield from _units(child)


def _hook(weights: list[nn.Parameter], change: Any) -> Any:
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
