"""Several optimizers as one, for methods whose parameter groups have optimizers of their own."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch

RECIPE = ""  # name of the recipe's optimizer among several
NAME = "optimizer"  # key of a parameter group: the name of its optimizer


class SeveralOptimizers(torch.optim.Optimizer):
    """Steps each parameter group with the optimizer that its key `optimizer` names.

    It has the groups and the state of all `optimizers` (by name), in this order; they get them for the time of a step only.
    So whatever replaces the parameters of a group, the list of groups or the state, as ZeRO does, replaces it for all.
    """

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        for name, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group[NAME] = name
        super().__init__([group for optimizer in optimizers.values() for group in optimizer.param_groups], {})
        self.optimizers = dict(optimizers)
        for optimizer in self.optimizers.values():
            self.state.update(optimizer.state)
            _take_back(optimizer)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of every optimizer that has groups."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for name, optimizer in self.optimizers.items():
            if groups := [group for group in self.param_groups if group[NAME] == name]:
                optimizer.param_groups, optimizer.state = groups, self.state
                optimizer.step()
                _take_back(optimizer)
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "optimizers": self.optimizers}


def defaults_of(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> dict[str, Any]:
    """The defaults of the optimizer that steps one of the parameter groups of `optimizer`."""
    if isinstance(optimizer, SeveralOptimizers):
        optimizer = optimizer.optimizers[group[NAME]]
    return optimizer.defaults


def _take_back(optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups, optimizer.state = [], defaultdict(dict)
