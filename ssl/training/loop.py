"""The training loop, from top to bottom: batch → method → backward → step → log, evaluate, checkpoint."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.ssl.data import Loader
from wildfern.ssl.evaluation.diagnostics import diagnostics
from wildfern.ssl.methods.comparing import compares_whole_batch
from wildfern.ssl.methods.gather import all_gather_embeddings
from wildfern.ssl.tracking import Tracker
from wildfern.ssl.training import whole_state
from wildfern.ssl.training.accumulation import separate_losses, shared_loss
from wildfern.ssl.training.batch_reader import BatchReader, MicroBatch
from wildfern.ssl.training.checkpoints import CheckpointStore, Save, Written
from wildfern.ssl.training.collapse import CollapseWatch
from wildfern.ssl.training.engine import Engine
from wildfern.ssl.training.finite import FiniteWatch, Row, restore_buffers, snapshot_buffers
from wildfern.ssl.training.method_state import FixedState
from wildfern.ssl.training.schedules import Schedule
from wildfern.ssl.training.sharded_state import write_shard
from wildfern.ssl.training.stopping import Consultation, StopRequest


@dataclass(frozen=True)
class LoopConfig:
    """The numbers of a run that the loop uses. `batch_size` is that of the global batch."""

    seed: int
    total_steps: int
    batch_size: int
    accumulation: int
    learning_rate: float
    weight_decay: float
    loader_threads: int
    channels_last: bool
    checkpoint_every: int
    checkpoint_minutes: float | None
    evaluate_every: int | None
    skip_nonfinite: int
    diagnostics: bool = False  # log signs of collapse of `Output.features` and `Output.embeddings`


@dataclass(frozen=True)
class StepResult:
    """Results of one optimizer step for the log: loss and metrics of each micro-batch, in order."""

    parts: list[dict[str, Tensor]]
    gradient_norm: Tensor
    learning_rate: float
    wait_seconds: float  # for data
    features: list[Tensor]  # of each micro-batch, this rank's rows; empty unless the loop logs diagnostics
    embeddings: list[Tensor]  # the same, [V, n, D]; one tensor of the global batch if that is what the method gives

    def means(self) -> dict[str, Tensor]:
        """Each scalar's mean over the micro-batches."""
        return {name: torch.stack([part[name] for part in self.parts]).mean() for name in self.parts[0]}


def train(
    config: LoopConfig,
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
    must_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int], None] = lambda step: None,
) -> int:
    """Train from `start_step` to the end, or until a stop is requested; returns the number of steps done.

    A signal on any rank stops it, and so does `must_stop()`, which is asked whenever ranks synchronize.

    `skipped_in_a_row` comes from the checkpoint that training resumes from. `evaluate` returns scores to log every
    `config.evaluate_every` steps. `on_checkpoint` runs on every rank after a checkpoint, `on_step` after each step.
    `on_nonfinite` gets a row for each micro-batch whose loss or gradient is NaN or infinite. More than `config.skip_nonfinite`
    such steps in a row raise NotFinite before the next checkpoint; with 0, at the next step that is logged, evaluated or saved.
    """
    done = start_step
    watch = FiniteWatch(engine, config.skip_nonfinite, reader.indices, on_nonfinite, skipped_in_a_row)
    state = FixedState(engine.method)
    collapse = CollapseWatch(engine.method, config.batch_size, config.total_steps)
    save = _Saver(config, engine, tracker, checkpoints, watch, state, on_checkpoint)
    consultation = Consultation(engine.any, most=1 if engine.world_size == 1 else 8)
    accumulation = config.accumulation
    with Loader(reader, start_step * accumulation, config.total_steps * accumulation, config.loader_threads) as loader:
        interval = _Interval()
        for step in range(start_step, config.total_steps):
            result = train_step(step, config, engine, reader, loader, schedule, watch)
            interval.waited += result.wait_seconds
            done = step + 1
            tracker.stepped(step)
            if step == start_step:
                state.check()
                if engine.device.type == "cuda":
                    torch.cuda.synchronize(engine.device)
                tracker.first_step(step)
            on_step(step)

            consulting = consultation.due()
            if consulting and engine.any(checkpoints.failed):
                checkpoints.wait()  # raises now, rather than at the next checkpoint
            stopping = consulting and engine.any(stop.signal_number is not None or must_stop())
            saving = stopping or save.due(done, consulting)
            evaluating = evaluate is not None and config.evaluate_every and done % config.evaluate_every == 0
            if (saving or evaluating or tracker.due(step)) and not config.skip_nonfinite:
                watch.check()
            if tracker.due(step):
                _log(step, result, engine, tracker, interval, collapse)
                interval = _Interval()
            if evaluating:
                with tracker.untimed():
                    tracker.evaluation(step, evaluate())
                interval = _Interval()
            if saving:
                save(done)
                interval = _Interval()
            if stopping:
                break
    save.report(checkpoints.wait())
    return done


def train_step(
    step: int,
    config: LoopConfig,
    engine: Engine,
    reader: BatchReader,
    loader: Loader[MicroBatch],
    schedule: Schedule,
    watch: FiniteWatch,
) -> StepResult:
    """One optimizer step: forward and backward pass of every micro-batch, then the update of weights, teachers and probe."""
    method, probe, skip_nonfinite = engine.method, engine.probe, config.skip_nonfinite > 0
    torch.manual_seed(
        key("model", config.seed, step, engine.rank)
    )  # for dropout and stochastic depth: a function of seed, step and rank
    before = snapshot_buffers([method, *method.teachers().values()]) if skip_nonfinite else []
    parts, waited = [], loader.total_wait_seconds
    features: list[Tensor] = []
    embeddings: list[Tensor] = []
    results = shared_loss if config.accumulation > 1 and compares_whole_batch(method) else separate_losses
    for part in results(engine, reader, loader, config.accumulation, skip_nonfinite):
        if probe is not None:
            probe.observe(part.features, part.labels)
        if config.diagnostics and part.features is not None:
            features.append(part.features)
        if config.diagnostics and part.embeddings is not None and not (embeddings and results is shared_loss):
            embeddings.append(part.embeddings)
        parts.append({"loss": part.loss, **part.metrics})
    learning_rate = config.learning_rate * schedule.learning_rate(step)
    freeze = {"freeze": True} if step < method.freeze else {}
    gradient_norm = engine.step(learning_rate, config.weight_decay * schedule.weight_decay(step), **freeze)
    watch.note(step, [part["loss"] for part in parts], gradient_norm)
    if skip_nonfinite and not watch.check():
        restore_buffers(before)
        if probe is not None:
            probe.forget()
    else:
        method.after_step(step, engine.gather)
        if probe is not None:
            probe.step()
    return StepResult(parts, gradient_norm, learning_rate, loader.total_wait_seconds - waited, features, embeddings)


class _Interval:
    """The time since the last line of the log, and the part of it spent waiting for data."""

    def __init__(self) -> None:
        self.began, self.waited = time.perf_counter(), 0.0

    def data_wait(self) -> float:
        return self.waited / (time.perf_counter() - self.began)


def _log(
    step: int, result: StepResult, engine: Engine, tracker: Tracker, interval: _Interval, collapse: CollapseWatch
) -> None:
    numbers = engine.mean({"gradient_norm": result.gradient_norm, **result.means()})
    metrics = {"loss": numbers.pop("loss"), "learning_rate": result.learning_rate, **numbers}
    if engine.probe is not None:
        metrics |= engine.probe.take_accuracy()
    metrics |= {name: float(value) for name, value in diagnostics(*_whole_batch(result, engine.world_size)).items()}
    tracker.log(step, metrics, {"data_wait": interval.data_wait(), **peak_memory(engine.device)})
    for message in collapse.messages(step, metrics):
        tracker.message(message)


def _whole_batch(result: StepResult, world_size: int) -> tuple[Tensor | None, Tensor | None]:
    """Features and embeddings of the images of all micro-batches and ranks; None where there are not two images."""
    features = [all_gather_embeddings(part[None])[0] for part in result.features]
    images = sum(map(len, features))
    embeddings = result.embeddings
    if world_size > 1 and sum(part.shape[1] for part in embeddings) * world_size == images:
        embeddings = [all_gather_embeddings(part) for part in embeddings]
    several = sum(part.shape[1] for part in embeddings) > 1
    return torch.cat(features) if images > 1 else None, torch.cat(embeddings, dim=1) if several else None


class _Saver:
    """Decides when a checkpoint is due, and writes it."""

    def __init__(
        self,
        config: LoopConfig,
        engine: Engine,
        tracker: Tracker,
        checkpoints: CheckpointStore,
        watch: FiniteWatch,
        state: FixedState,
        on_checkpoint: Callable[[], None],
    ) -> None:
        self.config, self.engine, self.tracker = config, engine, tracker
        self.checkpoints, self.watch, self.state, self.on_checkpoint = checkpoints, watch, state, on_checkpoint
        self.last = time.monotonic()

    def due(self, done: int, consulting: bool) -> bool:
        """Whether a checkpoint is due after `done` steps: by their number, or by the clock (on steps when ranks synchronize)."""
        if done == self.config.total_steps or done % self.config.checkpoint_every == 0:
            return True
        minutes = self.config.checkpoint_minutes
        return consulting and minutes is not None and self.engine.any(time.monotonic() - self.last >= 60 * minutes)

    def __call__(self, done: int) -> None:
        began = time.perf_counter()
        self.state.check()
        with self.tracker.untimed(), self.tracker.progress(f"saving a checkpoint after step {done}"):
            self.tracker.sync()
            metadata = {"batch_size": self.config.batch_size, "skipped_in_a_row": self.watch.skipped}
            self.report(self.checkpoints.write(done, self._copy, metadata | self.engine.metadata))
            self.on_checkpoint()
        self.tracker.checkpoint(done - 1, time.perf_counter() - began)
        self.last = time.monotonic()

    def report(self, written: Written | None) -> None:
        """Log a checkpoint that has been written."""
        if written is not None:
            self.tracker.checkpoint_written(written.step - 1, written.seconds)

    def _copy(self) -> Save:
        if self.checkpoints.sharded:
            return partial(write_shard, self.engine.shard())
        snapshot = self.engine.snapshot()
        return lambda folder: whole_state.write(snapshot, folder)


def peak_memory(device: torch.device) -> dict[str, float]:
    """Peak memory in GiB, of the GPU if there is one, else of this process."""
    if device.type == "cuda":
        return {"memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}
    try:
        import resource
    except ImportError:  # Windows
        return {}
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB elsewhere
    return {"memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
