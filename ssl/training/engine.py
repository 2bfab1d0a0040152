"""The engine interface: how the loop computes gradients and steps. `TorchEngine` is one process and plain torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from wildfern.ssl.methods.base import Method
from wildfern.ssl.methods.batch import Batch, Metrics, Output, checked_output
from wildfern.ssl.models.teacher import Gather, whole
from wildfern.ssl.training.online_evaluation import OnlineEvaluation
from wildfern.ssl.training.optimizers import set_hyperparameters
from wildfern.ssl.training.parameter_groups import MakeOptimizer as MakeOptimizer
from wildfern.ssl.training.parameter_groups import method_optimizer
from wildfern.ssl.training.restoring import restore
from wildfern.ssl.training.sharded_state import StateShard, collect_shard
from wildfern.ssl.training.state_layout import ReplicatedLayout
from wildfern.ssl.training.whole_state import collect

Precision = Literal["fp32", "bf16"]
T = TypeVar("T")


class Engine(Protocol):
    """Trains a `Method`. All engines train to the same numbers; the loop changes weights only through its engine."""

    method: Method
    device: torch.device
    rank: int
    world_size: int
    precision: Precision
    metadata: dict[str, object]  # saved with each checkpoint; any engine can read it
    probe: OnlineEvaluation | None  # observes each step, outside the engine; part of snapshots
    gather: Gather  # makes sharded parameters whole inside a `with` block

    def __call__(self, batch: Batch) -> Output:
        """Forward pass of one micro-batch of this rank."""

    def run(self, compute: Callable[[], T]) -> T:
        """`compute()`, a part of the method's forward pass that returns tensors in tuples or dictionaries."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of one micro-batch."""

    def step(self, learning_rate: float, weight_decay: float, freeze: bool = False) -> Tensor:
        """Clip, update the weights, reset the gradients; returns the gradient's norm before clipping.

        `freeze` keeps the backbone's weights as they are; it is only passed to the steps of `Method.freeze`.

        With `skip_nonfinite`, a gradient whose norm is NaN or infinite changes neither weights nor the optimizer.
        """

    def snapshot(self) -> dict[str, Tensor]:
        """Full weights, optimizer state, teachers and probe, on rank 0's CPU (empty on other ranks); called on every rank."""

    def shard(self) -> StateShard:
        """This rank's pieces of what `snapshot` returns, on the CPU, without communication."""

    def load(self, folder: Path) -> None:
        """Load what `whole_state.write` or `write_shard` wrote, from any engine and world size; called on every rank.

        Raises ValueError if it does not fit this method and optimizer.
        """

    def mean(self, scalars: Metrics) -> dict[str, float]:
        """The mean over ranks of each scalar, as numbers."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""

    def barrier(self) -> None:
        """Barrier without the collective timeout; rank 0 may be evaluating."""

    def close(self) -> None:
        """Leave the process group."""


class TorchEngine:
    """One process, on a CPU or one GPU; needs nothing but torch."""

    rank, world_size = 0, 1

    def __init__(
        self,
        method: Method,
        make_optimizer: MakeOptimizer,
        weight_decay: float,
        *,
        device: torch.device,
        precision: Precision,
        accumulation: int = 1,
        gradient_clip: float | None = None,
        skip_nonfinite: bool = False,
        probe: OnlineEvaluation | None = None,
    ) -> None:
        self.skip_nonfinite, self.probe = skip_nonfinite, probe
        self.method, self.device, self.gather = method, device, whole
        self.metadata = {"engine": "torch", "world_size": 1}
        self.precision, self.accumulation, self.gradient_clip = precision, accumulation, gradient_clip
        self.parameters = [p for p in method.parameters() if p.requires_grad]
        self.optimizer = method_optimizer(method, make_optimizer, weight_decay)
        self.layout = ReplicatedLayout(method, self.optimizer, whole)

    def __call__(self, batch: Batch) -> Output:
        return self.run(lambda: checked_output(self.method(batch), f"{type(self.method).__name__}.forward()", batch))

    def run(self, compute: Callable[[], T]) -> T:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return compute()

    def backward(self, loss: Tensor) -> None:
        (loss / self.accumulation).backward()

    def step(self, learning_rate: float, weight_decay: float, freeze: bool = False) -> Tensor:
        for parameter in self.parameters:
            if parameter.grad is None:  # not reached by the loss: zero gradient, as with DeepSpeed
                parameter.grad = torch.zeros_like(parameter)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters])
        if self.skip_nonfinite and not norm.isfinite():
            self.optimizer.zero_grad(set_to_none=True)
            return norm
        if self.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.gradient_clip, norm)
        set_hyperparameters(self.optimizer, learning_rate, weight_decay, freeze)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def snapshot(self) -> dict[str, Tensor]:
        return collect(self.method, self.layout, self.probe)

    def shard(self) -> StateShard:
        return collect_shard(self.method, self.layout, self.probe)

    def load(self, folder: Path) -> None:
        restore(folder, self.method, self.layout, self.probe)

    def mean(self, scalars: Metrics) -> dict[str, float]:
        return {name: float(value) for name, value in scalars.items()}

    def any(self, flag: bool) -> bool:
        return flag

    def barrier(self) -> None:
        pass

    def close(self) -> None:
        pass
