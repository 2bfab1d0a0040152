"""Save and restore numbers that an optimizer keeps in its parameter groups, such as the step count of timm's Lamb."""

import copy
import re
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from wildfern.ssl.training.several_optimizers import defaults_of

# Set by the recipe or by the schedule in each step, or chosen for the device.
NOT_STATE = frozenset(
    {"params", "lr", "initial_lr", "peak_rate", "weight_decay", "foreach", "fused", "capturable", "differentiable"}
)
PYTHON = {bool: torch.bool, int: torch.int64, float: torch.float64}


def group_numbers(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`INDEX/KEY` -> value, for the numbers and tensors of one number in the groups that differ from the optimizer's defaults.

    Tensors have shape [], Python's numbers shape [1], so that `set_group_numbers` restores their types.
    """
    found = {}
    for index, group in enumerate(optimizer.param_groups):
        defaults = defaults_of(optimizer, group)
        for key, value in group.items():
            if key in NOT_STATE or (key in defaults and defaults[key] == value):
                continue
            if isinstance(value, Tensor) and value.ndim == 0:
                found[f"{index}/{key}"] = value.detach().cpu().clone()
            elif type(value) in PYTHON:
                found[f"{index}/{key}"] = torch.tensor([value], dtype=PYTHON[type(value)])
    return found


def set_group_numbers(optimizer: torch.optim.Optimizer, numbers: dict[str, Tensor]) -> None:
    """Write what `group_numbers` returned into the groups. Raises ValueError, as `check_group_number` does."""
    for name, value in numbers.items():
        check_group_number(optimizer, name, value)
        index, _, key = name.partition("/")
        group = optimizer.param_groups[int(index)]
        if value.ndim:
            group[key] = value.item()
        else:
            now = group.get(key)
            group[key] = value.to(now.device) if isinstance(now, Tensor) else value.clone()


def check_group_number(optimizer: torch.optim.Optimizer, name: str, value: Tensor) -> None:
    """Raise ValueError for `INDEX/KEY` that is not among the numbers of the optimizer's parameter groups, and for NaN."""
    where = f"optimizer_groups/{name}"
    index, _, key = name.partition("/")
    if not re.fullmatch("[0-9]{1,6}", index) or int(index) >= len(optimizer.param_groups):
        raise ValueError(f"{where} is of a parameter group that this optimizer does not have")
    now = optimizer.param_groups[int(index)].get(key, 0.0)
    number = now.ndim == 0 if isinstance(now, Tensor) else type(now) in PYTHON
    if key in NOT_STATE or not number or (isinstance(now, bool) and value.dtype != torch.bool):
        raise ValueError(f"{where} is not a number of this optimizer's parameter groups")
    if value.isnan().any():
        raise ValueError(f"{where} is NaN")


def first_state(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """Per id of each parameter, the tensors of its state after a first step, found as in `counted_keys`; one element each."""
    trial = _trial(optimizer)
    trial.step()
    return {
        id(p): {key: value for key, value in trial.state.get(copied, {}).items() if isinstance(value, Tensor)}
        for p, copied in zip(_parameters(optimizer), _parameters(trial), strict=True)
    }


def counted_keys(optimizer: torch.optim.Optimizer) -> set[str]:
    """Keys of the parameter groups that a step changes, found by a step of a copy on parameters of one element."""
    trial = _trial(optimizer)
    before = group_numbers(trial)
    trial.step()
    after = group_numbers(trial)
    return {name.partition("/")[2] for name in before | after if before.get(name) != after.get(name)}


def _trial(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """A copy without state on parameters of one element, with gradients."""
    memo: dict[int, object] = {id(optimizer.state): defaultdict(dict)}
    for p in _parameters(optimizer):
        memo[id(p)] = nn.Parameter(torch.ones([1] * p.ndim, dtype=p.dtype, device=p.device))
    trial = copy.deepcopy(optimizer, memo)
    for p in _parameters(trial):
        p.grad = torch.ones_like(p)
    return trial


def _parameters(optimizer: torch.optim.Optimizer) -> Iterable[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])
