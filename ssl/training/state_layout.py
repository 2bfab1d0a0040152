"""How an engine distributes weights and the optimizer's state over ranks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from wildfern.ssl.methods.base import Method
from wildfern.ssl.models.sharded_module import part_of
from wildfern.ssl.models.teacher import Gather

_NOT_SPLIT = 2**14  # elements: smaller tensors are not worth a piece on each rank


@dataclass(frozen=True)
class Fragment:
    """Elements [start, start + count) of the flattened weight `name`, at `offset` of a flattened shard."""

    name: str
    start: int
    count: int
    offset: int


@dataclass(frozen=True)
class Shard:
    """One tensor that the optimizer steps: a weight, or this rank's share of several, flattened one after the other.

    `names` are all weights that have a fragment in this shard on any rank, the same list on every rank.
    """

    tensor: Tensor
    names: list[str]
    fragments: list[Fragment]


class StateLayout(Protocol):
    """How an engine distributes weights and the optimizer's state over ranks."""

    optimizer: torch.optim.Optimizer  # the optimizer that steps the shards
    shards: list[Shard]
    rank: int
    world_size: int
    gather: Gather  # weights whole inside the `with` block

    def add_to_main(self, flat: Tensor) -> None:
        """Sum every rank's contiguous tensor into the main rank's, byte by byte; a byte may be nonzero on one rank only."""

    def own_piece(self, weight: Tensor) -> tuple[int, Tensor]:
        """First element and elements, flattened, of this rank's piece of a weight; those of all ranks are the whole weight."""

    def own_fragments(self, shard: Shard) -> Iterator[Fragment]:
        """The fragments of this rank's piece of the optimizer's state; those of all ranks are the whole state."""

    def fill(self, weight: nn.Parameter, whole: Callable[[], Tensor], piece: Callable[[int, int], Tensor]) -> None:
        """Give a weight the values of `whole()`, of which `piece(start, count)` are some of the flattened elements."""

    def written(self) -> None:
        """Called after all weights were filled: update the engine's copies of them."""


def replicated_shards(method: Method) -> list[Shard]:
    """One shard for each trained weight, for engines that do not shard."""
    named = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    return [Shard(p, [name], [Fragment(name, 0, p.numel(), 0)]) for name, p in named]


def full_shape(weight: Tensor) -> torch.Size:
    """The full shape of a weight, also if it is sharded and itself an empty tensor."""
    part = part_of(weight)
    return getattr(weight, "ds_shape", weight.shape) if part is None else part.shape


def own_range(count: int, rank: int, world_size: int) -> tuple[int, int]:
    """First element and number of elements of a rank's share of `count` elements that all ranks have; small ones are rank 0's."""
    if count < _NOT_SPLIT:
        return (0, count) if rank == 0 else (count, 0)
    start, stop = count * rank // world_size, count * (rank + 1) // world_size
    return start, stop - start


class ReplicatedLayout:
    """Nothing is sharded: one process, or ZeRO stage 0."""

    def __init__(
        self, method: Method, optimizer: torch.optim.Optimizer, gather: Gather, rank: int = 0, world_size: int = 1
    ) -> None:
        self.optimizer, self.gather, self.rank, self.world_size = optimizer, gather, rank, world_size
        self.shards = replicated_shards(method)

    def add_to_main(self, flat: Tensor) -> None:
        """Does nothing: all ranks hold the same."""

    def own_piece(self, weight: Tensor) -> tuple[int, Tensor]:
        start, count = own_range(weight.numel(), self.rank, self.world_size)
        return start, weight.detach().flatten()[start : start + count]

    def own_fragments(self, shard: Shard) -> Iterator[Fragment]:
        for one in shard.fragments:
            start, count = own_range(one.count, self.rank, self.world_size)
            yield Fragment(one.name, one.start + start, count, one.offset + start)

    def fill(self, weight: nn.Parameter, whole: Callable[[], Tensor], piece: Callable[[int, int], Tensor]) -> None:
        weight.copy_(whole())

    def written(self) -> None:
        """Does nothing: there are no copies."""
