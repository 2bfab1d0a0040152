"""Learning rate and weight decay as functions of the step: nothing to save, nothing to restore."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from wildfern.registry import register

Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Schedule:
    """Factors of the base learning rate and the base weight decay at step 0 … total_steps − 1."""

    learning_rate: Callable[[int], float]
    weight_decay: Callable[[int], float] = lambda step: 1.0


def held(schedule: Schedule, steps: int) -> Schedule:
    """A schedule over `steps` steps, whose values at the last of them are held afterwards."""

    def last(step: int) -> int:
        return min(step, steps - 1)

    return Schedule(lambda step: schedule.learning_rate(last(step)), lambda step: schedule.weight_decay(last(step)))


def in_turn(first: Schedule, steps: int, second: Schedule) -> Schedule:
    """The first schedule for `steps` steps, then the second one from its start."""

    def learning_rate(step: int) -> float:
        return first.learning_rate(step) if step < steps else second.learning_rate(step - steps)

    def weight_decay(step: int) -> float:
        return first.weight_decay(step) if step < steps else second.weight_decay(step - steps)

    return Schedule(learning_rate, weight_decay)


def warm_up(step: int, steps: float) -> float:
    """Linear from about 1/steps to 1 over the first `steps` steps (Goyal et al., 2017)."""
    return min(1.0, (step + 1) / steps) if steps else 1.0


def half_cosine(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at 1 (Loshchilov & Hutter, 2017)."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@register("schedule", "cosine")
def cosine(
    total_steps: int, *, warmup: Fraction = 0.0, final: Fraction = 0.0, weight_decay_growth: NotNegative = 1.0
) -> Schedule:
    """Linear warm-up over the share `warmup` of the run, then half a cosine down to `final` times the base learning rate.

    Weight decay goes by half a cosine from its base to `weight_decay_growth` times it (DINO: 10, from 0.04 to 0.4).
    """
    warmup_steps = warmup * total_steps

    def learning_rate(step: int) -> float:
        if step < warmup_steps:
            return warm_up(step, warmup_steps)
        return half_cosine(1.0, final, (step - warmup_steps) / (total_steps - warmup_steps))

    return Schedule(learning_rate, lambda step: half_cosine(1.0, weight_decay_growth, step / total_steps))


@register("schedule", "constant")
def constant(total_steps: int, *, warmup: Fraction = 0.0) -> Schedule:
    """Linear warm-up over the share `warmup` of the run, then the base learning rate."""
    return Schedule(lambda step: warm_up(step, warmup * total_steps))


@register("schedule", "polynomial")
def polynomial(total_steps: int, *, power: Annotated[float, Field(gt=0)] = 0.9, warmup: Fraction = 0.0) -> Schedule:
    """Linear warm-up over the share `warmup` of the run, times (1 - step / steps) ^ `power` (DeepLab; FreeCOS: 0.9)."""

    def learning_rate(step: int) -> float:
        return warm_up(step, warmup * total_steps) * (1 - step / total_steps) ** power

    return Schedule(learning_rate)


@register("schedule", "milestones")
def milestones(
    total_steps: int,
    *,
    at: tuple[Fraction, ...] = (0.775, 0.85, 0.925),
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1,
    warmup: Fraction = 0.0,
) -> Schedule:
    """Times `factor` at each share of the run in `at`; the default is epochs 155, 170 and 185 of 200, as CACR on CIFAR."""

    def learning_rate(step: int) -> float:
        return warm_up(step, warmup * total_steps) * factor ** sum(step >= share * total_steps for share in at)

    return Schedule(learning_rate)
