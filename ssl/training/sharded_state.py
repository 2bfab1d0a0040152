"""The full state of training, of which each rank copies and writes only what it holds: one file for each rank."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from wildfern.ssl.methods.base import Method
from wildfern.ssl.training.fitting_state import STEP
from wildfern.ssl.training.online_evaluation import OnlineEvaluation
from wildfern.ssl.training.state_file import listed, shard_name
from wildfern.ssl.training.state_layout import StateLayout, full_shape
from wildfern.ssl.training.state_parts import copied, replicated_state, weights


@dataclass
class StateShard:
    """One rank's pieces of the state, on the CPU; `tensors` are shape and type of all tensors of the state, on rank 0."""

    rank: int
    world_size: int
    pieces: dict[str, Tensor] = field(default_factory=dict)
    tensors: dict[str, tuple[torch.Size, torch.dtype]] = field(default_factory=dict)

    def add(self, name: str, shape: torch.Size, start: int, flat: Tensor) -> None:
        """Copy elements of the flattened tensor `name`, from `start` on."""
        self.tensors[name] = shape, flat.dtype
        if flat.numel() or not shape.numel():
            self.pieces[f"{name}@{start}"] = copied(flat)

    @property
    def nbytes(self) -> int:
        return sum(piece.nbytes for piece in self.pieces.values())


@torch.no_grad()
def collect_shard(method: Method, layout: StateLayout, probe: OnlineEvaluation | None = None) -> StateShard:
    """This rank's pieces of the state, without communication. The pieces of all ranks are the state of `whole_state.collect`."""
    found = StateShard(layout.rank, layout.world_size)
    for name, weight in weights(method).items():
        found.add(name, full_shape(weight), *layout.own_piece(weight))
    shapes = {name: full_shape(p) for name, p in method.named_parameters()}
    for shard in layout.shards:
        for key, value in sorted(layout.optimizer.state.get(shard.tensor, {}).items()):
            if not isinstance(value, Tensor):
                continue
            names = {name: f"optimizer/{name}/{key}" for name in shard.names}
            if key == STEP:
                if layout.rank == 0:
                    for name in names.values():
                        found.add(name, value.shape, 0, value.flatten())
                continue
            found.tensors |= {name: (shapes[weight], value.dtype) for weight, name in names.items()}
            flat = value.flatten()
            for one in layout.own_fragments(shard):
                found.add(names[one.name], shapes[one.name], one.start, flat[one.offset : one.offset + one.count])
    if layout.rank == 0:
        for name, value in replicated_state(method, layout, probe).items():
            found.add(name, value.shape, 0, value.flatten())
    return found


def write_shard(shard: StateShard, folder: Path) -> Path:
    """Write one rank's file into an existing folder, with the folder's read permissions; returns its path."""
    path = folder / shard_name(shard.rank, shard.world_size)
    save_file(shard.pieces, path, {"tensors": listed(shard.tensors)} if shard.rank == 0 else None)
    path.chmod(folder.stat().st_mode & 0o666)  # safetensors makes files readable for their owner only
    return path
