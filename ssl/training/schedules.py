"""Learning rate and weight decay as functions of the step: nothing to save, nothing to restore."""

import math
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

Schedule = Callable[[int], float]
"""Maps step 0 … total_steps − 1 to a factor of the base value."""

Steps = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def warm_up(step: int, warmup_steps: int) -> float:
    """Linear from 1/warmup_steps to 1 (Goyal et al., 2017)."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def cosine(total_steps: int, *, warmup_steps: Steps = 0, final: Fraction = 0.0) -> Schedule:
    """Linear warm-up, then half a cosine down to `final` (Loshchilov & Hutter, 2017)."""
    if warmup_steps >= total_steps:
        raise ValueError(f"warmup_steps ({warmup_steps}) must be fewer than the steps of the run ({total_steps})")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return warm_up(step, warmup_steps)
        progress = (step - warmup_steps) / (total_steps - warmup_steps)
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return factor


def constant(total_steps: int, *, warmup_steps: Steps = 0) -> Schedule:
    """Linear warm-up, then 1."""
    return lambda step: warm_up(step, warmup_steps)


def milestones(
    total_steps: int,
    *,
    at: tuple[Fraction, ...] = (0.775, 0.85, 0.925),
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1,
    warmup_steps: Steps = 0,
) -> Schedule:
    """Times `factor` at each share of the run in `at`; the default is epochs 155, 170 and 185 of 200, as CACR on CIFAR."""
    return lambda step: warm_up(step, warmup_steps) * factor ** sum(step >= share * total_steps for share in at)


SCHEDULES = {"cosine": cosine, "constant": constant, "milestones": milestones}
