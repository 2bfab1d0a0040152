"""Engines by name, built from a recipe's section `engine` and the parts that the rest of the recipe defines."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field

from wildfern.registry import register
from wildfern.ssl.methods.base import Method
from wildfern.ssl.training.engine import Engine, MakeOptimizer, Precision, TorchEngine
from wildfern.ssl.training.online_evaluation import OnlineEvaluation


@dataclass(frozen=True)
class EngineParts:
    """The arguments that every engine gets, besides those of the section `engine`; `micro_batch_size` is per rank."""

    method: Method
    make_optimizer: MakeOptimizer
    optimizer_name: str
    weight_decay: float
    device: torch.device
    precision: Precision
    micro_batch_size: int
    accumulation: int
    gradient_clip: float | None
    skip_nonfinite: bool
    probe: OnlineEvaluation | None


@register("engine", "torch")
def torch_engine(parts: EngineParts) -> Engine:
    """One process, plain torch."""
    return TorchEngine(
        parts.method,
        parts.make_optimizer,
        parts.weight_decay,
        device=parts.device,
        precision=parts.precision,
        accumulation=parts.accumulation,
        gradient_clip=parts.gradient_clip,
        skip_nonfinite=parts.skip_nonfinite,
        probe=parts.probe,
    )


@register("engine", "deepspeed")
def deepspeed_engine(
    parts: EngineParts,
    *,
    zero_stage: Literal[0, 1, 2, 3] = 1,
    timeout_minutes: Annotated[float, Field(gt=0)] = 10.0,
) -> Engine:
    """Any number of processes, started by the `deepspeed` launcher, torchrun or srun.

    `timeout_minutes`, of a collective, is read when the process group is created, before the engine.
    """
    from wildfern.ssl.training.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(
        parts.method,
        parts.make_optimizer,
        parts.weight_decay,
        optimizer_name=parts.optimizer_name,
        micro_batch_size=parts.micro_batch_size,
        zero_stage=zero_stage,
        device=parts.device,
        precision=parts.precision,
        accumulation=parts.accumulation,
        gradient_clip=parts.gradient_clip,
        skip_nonfinite=parts.skip_nonfinite,
        probe=parts.probe,
    )
