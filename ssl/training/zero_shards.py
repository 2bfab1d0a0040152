"""The partition of weights and optimizer state over ranks under ZeRO."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from wildfern.ssl.methods.base import Method
from wildfern.ssl.models.sharded_module import part_of
from wildfern.ssl.models.teacher import Gather
from wildfern.ssl.training.state_layout import Fragment, Shard, own_range


class ZeroLayout:
    """ZeRO stages 1 to 3 of DeepSpeed without offloading; `zero` is DeepSpeed's wrapper of the optimizer.

    Stages 1 and 2 concatenate the flattened weights of a group and split the result into one part for each rank, of which
    the optimizer updates a float32 copy. Stage 3 splits each weight into equal parts, the last ones padded.
    """

    def __init__(self, method: Method, zero: object, stage: int, gather: Gather) -> None:
        self._zero, self._stage = zero, stage
        self.rank, self.world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.gather, self.optimizer = gather, zero.optimizer
        names = {id(p): name for name, p in method.named_parameters()}
        self.shards = self._of_stage_3(names) if stage == 3 else self._of_stages_1_and_2(names)

    def _of_stages_1_and_2(self, names: dict[int, str]) -> list[Shard]:
        shards = []
        for flat, weights in zip(self._zero.single_partition_of_fp32_groups, self._zero.bit16_groups, strict=True):
            here = [(names[id(p)], p._hp_mapping) for p in weights if p._hp_mapping is not None]
            fragments = [
                Fragment(name, m.lp_fragment_address.start, m.lp_fragment_address.numel, m.hp_fragment_address.start)
                for name, m in here
            ]
            shards.append(Shard(flat, [names[id(p)] for p in weights], fragments))
        return shards

    def _of_stage_3(self, names: dict[int, str]) -> list[Shard]:
        shards = []
        for flat, weights in zip(self._zero.fp32_partitioned_groups_flat, self._zero.fp16_groups, strict=True):
            fragments = []
            for p in weights:
                _, offset, part = self._zero.grad_position[self._zero.get_param_id(p)]
                start = min(self.rank * part, p.ds_numel)
                fragments.append(Fragment(names[id(p)], start, min(part, p.ds_numel - start), offset))
            shards.append(Shard(flat, [names[id(p)] for p in weights], fragments))
        return shards

    def add_to_main(self, flat: Tensor) -> None:
        """Sum bytes on rank 0, so that -0.0 stays -0.0."""
        torch.distributed.reduce(flat.view(torch.uint8), dst=0)

    def own_piece(self, weight: Tensor) -> tuple[int, Tensor]:
        """At stage 3 this rank's part of a weight, without gathering it."""
        if (sharded := part_of(weight)) is not None:
            return sharded.start, sharded.own
        if not hasattr(weight, "ds_tensor"):
            start, count = own_range(weight.numel(), self.rank, self.world_size)
            return start, weight.detach().flatten()[start : start + count]
        part = weight.ds_tensor.ds_numel
        start = min(self.rank * part, weight.ds_numel)
        return start, weight.ds_tensor.detach()[: min(part, weight.ds_numel - start)]

    def own_fragments(self, shard: Shard) -> Iterator[Fragment]:
        return iter(shard.fragments)

    def fill(self, weight: nn.Parameter, whole: Callable[[], Tensor], piece: Callable[[int, int], Tensor]) -> None:
        """At stage 3 each rank reads its own part; only a weight that is kept whole is read as a whole."""
        is_teacher = part_of(weight) is not None
        if not is_teacher and not hasattr(weight, "ds_tensor"):
            weight.copy_(whole())
            return
        start, own = self.own_piece(weight)
        own.copy_(piece(start, own.numel()))
        if not is_teacher and weight.numel() == weight.ds_numel:
            weight.copy_(whole())

    def written(self) -> None:
        """Refresh the optimizer's copies."""
        self._zero.refresh_fp32_params()
