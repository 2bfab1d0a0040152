"""The full state of training by name, in one file that every engine reads, on any number of ranks.

`training.safetensors` holds `method/NAME` (weights and buffers), `optimizer/NAME/KEY` (optimizer state of the weight NAME),
`optimizer_groups/INDEX/KEY` (numbers of its parameter groups), `teacher/TEACHER/NAME` and, of online evaluations, `probe/NAME`
and `online_knn/NAME`. Of a frozen teacher it holds only the SHA-256, `frozen/TEACHER/sha256`. The format cannot contain code.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from wildfern.ssl.methods.base import Method
from wildfern.ssl.training.fitting_state import STEP
from wildfern.ssl.training.online_evaluation import OnlineEvaluation
from wildfern.ssl.training.state_file import FILE
from wildfern.ssl.training.state_layout import Shard, StateLayout, full_shape
from wildfern.ssl.training.state_parts import copied, replicated_state, weights

__all__ = ["FILE", "collect", "write"]


def collect(method: Method, layout: StateLayout, probe: OnlineEvaluation | None = None) -> dict[str, Tensor]:
    """The full state of training, on the CPU of the main rank; empty on other ranks. Called on every rank."""
    found: dict[str, Tensor] = {}
    is_main = layout.rank == 0
    for name, weight in weights(method).items():
        with layout.gather([weight]):
            if is_main:
                found[name] = copied(weight)
    shapes = {name: full_shape(p) for name, p in method.named_parameters()}
    for shard in layout.shards:
        for key, value in sorted(layout.optimizer.state.get(shard.tensor, {}).items()):
            for name in shard.names:
                whole = _joined(shard, name, key, value, shapes[name], layout)
                if is_main and whole is not None:
                    found[f"optimizer/{name}/{key}"] = whole
    return found | replicated_state(method, layout, probe) if is_main else {}


def write(state: dict[str, Tensor], folder: Path) -> None:
    """Write `training.safetensors` into an existing folder, with the folder's read permissions."""
    save_file(state, folder / FILE)
    (folder / FILE).chmod(folder.stat().st_mode & 0o666)  # safetensors makes files readable for their owner only


def _joined(shard: Shard, name: str, key: str, value: object, shape: torch.Size, layout: StateLayout) -> Tensor | None:
    """The optimizer's full state tensor `key` of a weight, on the main rank; None if it is not a tensor."""
    if not isinstance(value, Tensor):
        return None
    if key == STEP:
        return copied(value)
    flat = torch.zeros(shape.numel(), dtype=value.dtype, device=value.device)
    for piece in shard.fragments:
        if piece.name == name:
            flat[piece.start : piece.start + piece.count] = value.flatten()[piece.offset : piece.offset + piece.count]
    layout.add_to_main(flat)
    return copied(flat.view(shape))
