"""The momentum teacher: an exponential moving average of the student (Grill et al., 2020; Caron et al., 2021)."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wildfern.ssl.models.sharded_module import part_of

_GATHERED = 2**25  # elements of weights that are gathered together

Gather = Callable[[Iterable[nn.Parameter]], AbstractContextManager]


def whole(parameters: Iterable[nn.Parameter]) -> AbstractContextManager:
    """The `Gather` of engines that keep every parameter whole on every rank: does nothing."""
    return nullcontext()


class MomentumTeacher:
    """θ_teacher ← m θ_teacher + (1 − m) θ_student after each step, in float32, on every rank.

    Not an `nn.Module`, so that engines neither synchronize nor optimize it; under ZeRO 3 each rank keeps a part of it
    (`wildfern.ssl.models.sharded_module`). Batch normalization is in training mode, with
    the statistics of the teacher's batches; stochastic depth, dropout and patch dropout are off. It has no gradients.
    """

    def __init__(self, student: nn.Module) -> None:
        self.module = copy.deepcopy(student).requires_grad_(False).eval()
        for module in self.module.modules():
            if isinstance(module, _BatchNorm):
                module.training = True  # not .train(): timm's layers contain dropout

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.module(*inputs)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float, gather: Gather = whole) -> None:
        """Move towards `student`; `gather` makes its parameters whole under sharded engines, some at a time."""
        whole_pairs = []
        for mine, other in zip(self.module.parameters(), student.parameters(), strict=True):
            if (part := part_of(mine)) is None:
                whole_pairs.append((mine, other))
            elif (sharded := getattr(other, "ds_tensor", None)) is not None:  # by DeepSpeed, in the same parts
                part.own.lerp_(sharded.detach()[: part.count], 1 - momentum)
            else:
                part.own.lerp_(other.detach().flatten()[part.start : part.start + part.count], 1 - momentum)
        for some in _at_a_time(whole_pairs):
            ours, theirs = zip(*some, strict=True)
            with gather(theirs):
                torch._foreach_lerp_([*ours], [p.detach() for p in theirs], 1 - momentum)


def _at_a_time(pairs: list[tuple[nn.Parameter, nn.Parameter]]) -> Iterator[list[tuple[nn.Parameter, nn.Parameter]]]:
    """Consecutive pairs, of at most `_GATHERED` elements together unless a single one has more."""
    some: list[tuple[nn.Parameter, nn.Parameter]] = []
    elements = 0
    for pair in pairs:
        elements += pair[0].numel()
        if some and elements > _GATHERED:
            yield some
            some, elements = [], pair[0].numel()
        some.append(pair)
    if some:
        yield some


def cosine_momentum(base: float, step: int, total_steps: int) -> float:
    """m rises from `base` to 1 over the run: 1 − (1 − base)(cos(πs/S) + 1)/2 (BYOL, section 3.3).

    Steps from `total_steps` on have the value of the last step before.
    """
    step = min(step, total_steps - 1)
    return 1 - (1 - base) * (math.cos(math.pi * step / total_steps) + 1) / 2


def linear_momentum(base: float, step: int, total_steps: int) -> float:
    """m rises linearly from `base` to 1 over the run (I-JEPA, appendix A.1); later steps have the last step's value."""
    return base + (1 - base) * min(step, total_steps - 1) / total_steps
