"""Detect losses and gradients that are NaN or infinite, record rank and images, and stop training before anything is saved."""

import socket
from collections.abc import Callable, Sequence

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wildfern.ssl.training.engine import Engine

Row = dict[str, object]


class NotFinite(FloatingPointError):
    """The loss or the gradient was NaN or infinite in more steps in a row than allowed."""


class FiniteWatch:
    """Collects losses and gradient norms on the device and checks them on request.

    `allowed`: steps in a row that may be skipped (see `Engine.step`); with 0, numbers may stay on the device until a step that
    is logged, evaluated or saved. `indices(step, part)` are the images of a micro-batch on this rank; rank 0 passes one row per
    rank and micro-batch concerned to `record`. `skipped`: steps in a row that were already skipped.
    """

    def __init__(
        self,
        engine: Engine,
        allowed: int,
        indices: Callable[[int, int], NDArray],
        record: Callable[[list[Row]], None] = lambda rows: None,
        skipped: int = 0,
    ) -> None:
        self.engine, self.allowed, self.indices, self.record = engine, allowed, indices, record
        self._losses: list[Tensor] = []  # each float[parts]
        self._norms: list[Tensor] = []
        self._first, self.skipped = 0, skipped

    def note(self, step: int, losses: Sequence[Tensor], gradient_norm: Tensor) -> None:
        """Collect consecutive steps, on every rank."""
        if not self._losses:
            self._first = step
        self._losses.append(torch.stack([loss.float() for loss in losses]))
        self._norms.append(gradient_norm)

    def check(self) -> bool:
        """Whether everything since the last check is finite; called on every rank after the same step.

        Raises NotFinite on every rank if it is not and no more steps may be skipped.
        """
        losses, norms = torch.stack(self._losses).cpu(), torch.stack([norm.float().cpu() for norm in self._norms])
        first, self._losses, self._norms = self._first, [], []
        finite = bool(losses.isfinite().all() and norms.isfinite().all())
        if not self.engine.any(not finite):
            self.skipped = 0
            return True
        rows = [
            self._row(first + step, part, float(losses[step, part]), float(norms[step]))
            for step, part in ((~(losses.isfinite() & norms.isfinite()[:, None])).nonzero().tolist())
        ]
        rows = self._from_all_processes(rows)
        step = min(row["step"] for row in rows)
        rows = [row for row in rows if row["step"] == step]
        # If some losses are not finite, only their micro-batches are reported; else any micro-batch may be the cause.
        rows = [row for row in rows if isinstance(row["loss"], str)] or rows
        if self.engine.rank == 0:
            self.record(rows)
        self.skipped += 1
        if self.skipped > self.allowed:
            raise NotFinite(_message(rows, self.allowed))
        return False

    def _row(self, step: int, part: int, loss: float, gradient_norm: float) -> Row:
        return {
            "step": step,
            "rank": self.engine.rank,
            "host": socket.gethostname(),
            "part": part,
            "loss": loss if abs(loss) < float("inf") else str(loss),
            "gradient_norm": gradient_norm if abs(gradient_norm) < float("inf") else str(gradient_norm),
            "indices": self.indices(step, part).tolist(),
        }

    def _from_all_processes(self, rows: list[Row]) -> list[Row]:
        if self.engine.world_size == 1:
            return rows
        found: list[list[Row]] = [[] for _ in range(self.engine.world_size)]
        torch.distributed.all_gather_object(found, rows)
        return [row for rows in found for row in rows]


def _message(rows: list[Row], allowed: int) -> str:
    worst = rows[0]
    name = "loss" if isinstance(worst["loss"], str) else "gradient_norm"
    where = ", ".join(sorted({f"rank {row['rank']} on {row['host']}" for row in rows}))
    many = f", after {allowed} skipped steps in a row" if allowed else ""
    return (
        f"{name} is {worst[name]} at step {worst['step']} of {where}{many}: this step was not saved, the last checkpoint is "
        "complete, and the indices of the images are in nonfinite.jsonl; try a lower learning rate, "
        "training.gradient_clip, or training.precision=fp32"
    )


def snapshot_buffers(modules: Sequence[nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """The buffers of some modules (batch statistics, a center), each with a copy of its value."""
    return [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]


def restore_buffers(kept: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Restore the values that `snapshot_buffers` copied."""
    for buffer, before in kept:
        buffer.copy_(before)
