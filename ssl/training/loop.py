"""The training loop, from top to bottom: batch → views → method → backward → step → log, evaluate, checkpoint."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.ssl.augmentation import ViewBatch, Views
from wildfern.ssl.data import Loader, Mixture
from wildfern.ssl.tracking import Tracker
from wildfern.ssl.training import whole_state
from wildfern.ssl.training.checkpoints import CheckpointStore, Written
from wildfern.ssl.training.engine import Engine
from wildfern.ssl.training.finite import FiniteWatch, Row, restore_buffers, snapshot_buffers
from wildfern.ssl.training.schedules import Schedule
from wildfern.ssl.training.stopping import Consultation, StopRequest


@dataclass(frozen=True)
class LoopConfig:
    """The numbers of a run that the loop goes by."""

    seed: int
    total_steps: int
    batch_size: int  # global
    accumulation: int
    learning_rate: float
    weight_decay: float
    loader_threads: int
    channels_last: bool
    checkpoint_every: int
    checkpoint_minutes: float | None
    evaluate_every: int | None
    skip_nonfinite: int


class BatchReader:
    """Micro-batch k of this rank, ready for the device: a pure function of k (rules 1 and 2).

    Step s = k // accumulation consumes the indices [s·B, (s+1)·B); its micro-batches are consecutive parts of them, and rank r
    takes the r-th part of each.
    """

    def __init__(self, plan: LoopConfig, mixture: Mixture, views: Views, rank: int, world_size: int) -> None:
        parts = plan.accumulation * world_size
        if plan.batch_size % parts:
            raise ValueError(
                f"training.batch_size {plan.batch_size} does not divide into {plan.accumulation} × {world_size} "
                "(accumulation × processes) equal parts"
            )
        self.plan, self.mixture, self.views = plan, mixture, views
        self.rank, self.world_size, self.size = rank, world_size, plan.batch_size // parts

    def __call__(self, k: int) -> ViewBatch:
        step, part = divmod(k, self.plan.accumulation)
        positions = self.positions(part)
        images = self.mixture.read(self.indices(step, part))
        if not self.mixture.fixed_size:  # else where an image is cropped would depend on who else is in the batch
            images = images.as_lists()
        prepared = self.views.prepare(
            images.pixels, self.plan.seed, step, positions, images.paired_images, self.plan.batch_size
        )
        return replace(prepared, labels=images.labels)

    def positions(self, part: int) -> NDArray[np.int64]:
        """Where the images of this rank's micro-batch `part` of a step stand in the global batch: int64[n]."""
        return (part * self.world_size + self.rank) * self.size + np.arange(self.size)

    def indices(self, step: int, part: int) -> NDArray[np.int64]:
        """The images of this rank's micro-batch `part` of a step, as `mixture.read` takes them: int64[n]."""
        return step * self.plan.batch_size + self.positions(part)


def train(
    plan: LoopConfig,
    engine: Engine,
    reader: BatchReader,
    schedule: Schedule,
    tracker: Tracker,
    checkpoints: CheckpointStore,
    stop: StopRequest,
    start_step: int = 0,
    skipped_in_a_row: int = 0,
    evaluate: Callable[[], dict[str, float]] | None = None,
    on_checkpoint: Callable[[], None] = lambda: None,
    on_nonfinite: Callable[[list[Row]], None] = lambda rows: None,
) -> int:
    """Train from `start_step` to the end, or until a stop is asked for; returns the number of steps done.

    `skipped_in_a_row` is what the checkpoint says that training goes on from.
    `evaluate` gives scores to log every `plan.evaluate_every` steps. `on_checkpoint` runs on every rank after a checkpoint.
    `on_nonfinite` gets what is known of losses or gradients that are NaN or infinite. More than `plan.skip_nonfinite` such steps
    in a row raise NotFinite, checkpoints untouched; with 0, at the next logged, evaluated or saved step.
    """
    micro_start, micro_stop = start_step * plan.accumulation, plan.total_steps * plan.accumulation
    done, probe = start_step, engine.probe
    last_saved = time.monotonic()
    watch = FiniteWatch(engine, plan.skip_nonfinite, reader.indices, on_nonfinite, skipped_in_a_row)
    watched = [engine.method, *engine.method.teachers().values()]

    def late() -> bool:
        minutes = plan.checkpoint_minutes
        return minutes is not None and engine.any(time.monotonic() - last_saved >= 60 * minutes)

    def copy() -> Callable[[Path], None]:
        snapshot = engine.snapshot()
        return lambda folder: whole_state.write(snapshot, folder)

    def checkpoint() -> None:
        nonlocal last_saved
        began = time.perf_counter()
        with tracker.untimed():
            tracker.sync()
            metadata = {"batch_size": plan.batch_size, "skipped_in_a_row": watch.skipped, **engine.metadata}
            published(checkpoints.write(done, copy, metadata))
            on_checkpoint()
        tracker.checkpoint(done - 1, time.perf_counter() - began)
        last_saved = time.monotonic()

    def published(checkpoint: Written | None) -> None:
        if checkpoint is not None:
            tracker.checkpoint_written(checkpoint.step - 1, checkpoint.seconds)

    with Loader(reader, micro_start, micro_stop, plan.loader_threads) as batches:
        began, waited = time.perf_counter(), 0.0
        consultation = Consultation(engine.any, most=1 if engine.world_size == 1 else 8)
        for step in range(start_step, plan.total_steps):
            torch.manual_seed(key("model", plan.seed, step, engine.rank))  # dropout, drop path: addressed like all else
            parts = []
            before = snapshot_buffers(watched) if plan.skip_nonfinite else []
            for batch in batches_of_step(batches, plan.accumulation):
                views = in_layout(reader.views(batch), plan.channels_last)
                loss, scalars = engine(views, step)
                # A gradient that is no number either, so that the step is skipped; a finite loss is multiplied by 1.
                engine.backward(loss * (loss.detach() - loss.detach() + 1) if plan.skip_nonfinite else loss)
                if probe is not None:
                    probe.observe(engine.method.features, batch.labels)
                parts.append({"loss": loss.detach(), **scalars})
                waited += batches.wait_seconds
            learning_rate = plan.learning_rate * schedule.learning_rate(step)
            gradient_norm = engine.step(learning_rate, plan.weight_decay * schedule.weight_decay(step))
            watch.note(step, [part["loss"] for part in parts], gradient_norm)
            if plan.skip_nonfinite and not watch.check():
                restore_buffers(before)
                if probe is not None:
                    probe.forget()
            else:
                engine.method.after_step(step, engine.gather)
                if probe is not None:
                    probe.step()
            done = step + 1
            if step == start_step:
                if engine.device.type == "cuda":
                    torch.cuda.synchronize(engine.device)
                tracker.first_step(step)

            asking = consultation.due()
            if asking and engine.any(checkpoints.failed):
                checkpoints.wait()  # raises, rather than train on until the next one fails too
            stopping = asking and engine.any(stop.signal_number is not None)
            saving = stopping or done == plan.total_steps or done % plan.checkpoint_every == 0 or (asking and late())
            evaluating = evaluate is not None and plan.evaluate_every and done % plan.evaluate_every == 0
            if (saving or evaluating or tracker.due(step)) and not plan.skip_nonfinite:
                watch.check()
            if tracker.due(step):
                means = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
                numbers = engine.mean({"gradient_norm": gradient_norm, **means})
                metrics = {"loss": numbers.pop("loss"), "learning_rate": learning_rate, **numbers}
                if probe is not None:
                    metrics |= probe.take_accuracy()
                elapsed = time.perf_counter() - began
                timings = {"data_wait": waited / elapsed, **memory(engine.device)}
                tracker.log(step, metrics, timings)
                began, waited = time.perf_counter(), 0.0
            if evaluating:
                with tracker.untimed():
                    tracker.evaluation(step, evaluate())
                began, waited = time.perf_counter(), 0.0
            if saving:
                checkpoint()
                began, waited = time.perf_counter(), 0.0
            if stopping:
                break
    published(checkpoints.wait())
    return done


def batches_of_step(batches: Loader[ViewBatch], accumulation: int) -> Iterator[ViewBatch]:
    """The next `accumulation` micro-batches, one at a time."""
    return (next(batches) for _ in range(accumulation))


def in_layout(views: list[Tensor], channels_last: bool) -> list[Tensor]:
    """Each group of views with its images' channels last or first in memory; shapes stay, and so does what lies so already."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [g.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, g.shape[:2]) for g in views]


def memory(device: torch.device) -> dict[str, float]:
    """Peak memory in GiB: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return {"memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}
    try:
        import resource
    except ImportError:  # Windows
        return {}
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB elsewhere
    return {"memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
