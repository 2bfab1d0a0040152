"""The partition of weights and optimizer state over ranks under ZeRO, to read and write full tensors."""

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from wildfern.ssl.methods.base import Method
from wildfern.ssl.models.teacher import Gather
from wildfern.ssl.training.whole_state import Fragment, Shard


class ZeroLayout:
    """ZeRO stages 1 to 3 of DeepSpeed without offloading; `zero` is DeepSpeed's wrapper of the optimizer.

    Stages 1 and 2 concatenate the flattened weights of a group and split the result into one part for each rank, of which
    the optimizer updates a float32 copy. Stage 3 splits each weight into equal parts, the last ones padded.
    """

    def __init__(self, method: Method, zero: object, stage: int, gather: Gather) -> None:
        self._zero, self._stage = zero, stage
        self.rank = torch.distributed.get_rank()
        self.is_main, self.gather, self.optimizer = self.rank == 0, gather, zero.optimizer
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

    def writing(self, parameters: Iterable[nn.Parameter]) -> AbstractContextManager:
        """At stage 3 the values of rank 0 are partitioned and sent to all ranks."""
        import deepspeed

        return deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=0, enabled=self._stage == 3)

    def written(self) -> None:
        """Refresh the optimizer's copies."""
        self._zero.refresh_fp32_params()
