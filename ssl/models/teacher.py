"""The momentum teacher: an exponential moving average of the student (Grill et al., 2020; Caron et al., 2021)."""

import copy
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

Gather = Callable[[Iterable[nn.Parameter]], AbstractContextManager]


def whole(parameters: Iterable[nn.Parameter]) -> AbstractContextManager:
    """For engines that keep every parameter whole on every rank: nothing to gather."""
    return nullcontext()


class MomentumTeacher:
    """θ_teacher ← m θ_teacher + (1 − m) θ_student after each step, in float32, on every rank.

    Deliberately no `nn.Module`: engines must neither shard, synchronize nor optimize it. It sees the data in training mode,
    so its batch statistics are its own; it never carries a gradient.
    """

    def __init__(self, student: nn.Module) -> None:
        self.module = copy.deepcopy(student).requires_grad_(False)
        self.module.train()

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.module(*inputs)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float, gather: Gather = whole) -> None:
        """Move towards `student`, whose parameters `gather` makes whole first (sharded engines)."""
        theirs = list(student.parameters())
        with gather(theirs):
            torch._foreach_lerp_(list(self.module.parameters()), [p.detach() for p in theirs], 1 - momentum)


def cosine_momentum(base: float, step: int, total_steps: int) -> float:
    """m rises from `base` to 1 over the run: 1 − (1 − base)(cos(πs/S) + 1)/2 (BYOL, section 3.3)."""
    return 1 - (1 - base) * (math.cos(math.pi * step / total_steps) + 1) / 2
