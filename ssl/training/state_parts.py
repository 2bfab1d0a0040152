"""The tensors of a training state by their names in checkpoints, apart from the optimizer's state of each weight."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wildfern.ssl.methods.base import Method
from wildfern.ssl.training.fitting_state import GROUPS
from wildfern.ssl.training.online_evaluation import OnlineEvaluation
from wildfern.ssl.training.optimizer_groups import group_numbers
from wildfern.ssl.training.state_layout import StateLayout


def weights(method: Method) -> dict[str, nn.Parameter]:
    """The weights of the method and its momentum teachers, which engines may shard."""
    found = {f"method/{name}": p for name, p in method.named_parameters()}
    for teacher, module in method.teachers().items():
        found |= {f"teacher/{teacher}/{name}": p for name, p in module.named_parameters(remove_duplicate=False)}
    return found


def buffers(method: Method) -> dict[str, Tensor]:
    """Their state that is not a weight, the same on all ranks: batch statistics, a center."""
    found = {f"method/{name}": value for name, value in _buffers(method).items()}
    for teacher, module in method.teachers().items():
        found |= {f"teacher/{teacher}/{name}": value for name, value in _buffers(module).items()}
    return found


def replicated_state(method: Method, layout: StateLayout, probe: OnlineEvaluation | None) -> dict[str, Tensor]:
    """Copies, on the CPU, of all that is the same on all ranks."""
    found = {f"{GROUPS}{name}": value for name, value in group_numbers(layout.optimizer).items()}
    found |= {name: copied(value) for name, value in buffers(method).items()}
    found |= frozen(method)
    for part in online_parts(probe):
        found |= {f"{part.root}{name}": copied(value) for name, value in part.state_dict().items()}
    return found


def frozen(method: Method) -> dict[str, Tensor]:
    """The SHA-256 of each frozen teacher, uint8[32]."""
    return {
        f"frozen/{name}/sha256": torch.tensor(list(bytes.fromhex(teacher.sha256)), dtype=torch.uint8)
        for name, teacher in method.frozen_teachers().items()
    }


def online_parts(probe: OnlineEvaluation | None) -> Sequence[OnlineEvaluation]:
    """The online evaluations, each with its root in the names of a state."""
    return [] if probe is None else probe.parts


def copied(value: Tensor) -> Tensor:
    """A contiguous copy on the CPU."""
    return torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    named = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return {name: value for name, value in module.state_dict().items() if name not in named}
