"""One call per step for all records of a run: metrics, timings, terminal, wandb."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from .console import TrainingDisplay
from .jsonl import JsonLines
from .progress import Progress
from .throughput import Throughput
from .wandb_run import WandbRun


class Tracker:
    """Writes `metrics.jsonl` (determined by the recipe) and `timings.jsonl` (determined by the machine), and shows both.

    A record's `step` is the global step s that consumed indices [s·B, (s+1)·B), from 0, so a checkpoint taken after s
    belongs to `start_step` s+1: lines of that step and later ones are dropped on opening and written again, the same
    bytes. Log a step, evaluate it, `sync()`, then publish its checkpoint, in this order.

    With `images_per_step` (the global batch) the tracker adds `images_per_second` and `step_seconds` since the last logged
    step to the timings, without the time spent inside `untimed()`. `enabled=False` (all ranks but one): no files, no display.
    `since` is the time on `clock` at which the command started.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        total_steps: int,
        start_step: int = 0,
        log_every: int = 1,
        *,
        images_per_step: int | None = None,
        wandb: WandbRun | None = None,
        enabled: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.perf_counter,
        since: float | None = None,
    ) -> None:
        self.enabled = enabled
        self._clock = clock
        self._since = clock() if since is None else since
        self._total = total_steps
        self._log_every = log_every
        self._last_step = start_step - 1
        self._images_per_step = images_per_step
        self._wandb = wandb if enabled else None
        self._throughput = Throughput(clock)
        self._display = TrainingDisplay(
            total_steps, start_step, log_every, console=console, clock=clock, enabled=enabled
        )
        self._files: list[JsonLines] = []
        damage: list[str] = []
        if enabled:
            names = ("metrics.jsonl", "timings.jsonl")
            self._files = [JsonLines.resume(Path(run_dir) / name, start_step, damage.append) for name in names]
        self._display.__enter__()
        for message in damage:
            self.message(message)

    def due(self, step: int) -> bool:
        """Whether `step` is one to log: the first of the run, each `log_every`-th, the last.

        Depends only on the step, not on where the run was resumed. Ask before moving metrics off the device.
        """
        return step == 0 or (step + 1) % self._log_every == 0 or step == self._total - 1

    def stepped(self, step: int) -> None:
        """Note that global step `step` is done, so that the display moves between logged steps; nothing is recorded."""
        self._display.stepped(step)

    @contextmanager
    def progress(self, text: str = "") -> Iterator[Progress]:
        """Show how far something besides steps is inside the block; nothing is recorded."""
        with self._display.progress(text) as progress:
            yield progress

    def log(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float] | None = None) -> None:
        """Record global step `step`; numbers may be one-element tensors."""
        if not self.enabled:
            return
        metrics = {key: float(value) for key, value in metrics.items()}
        timings = {key: float(value) for key, value in (timings or {}).items()}
        steps, self._last_step = step - self._last_step, step
        if self._images_per_step and steps > 0:
            speed = self._throughput.update(steps * self._images_per_step)
            timings.setdefault("images_per_second", speed)
            timings.setdefault("step_seconds", self._images_per_step / speed)
        self._write(step, metrics, timings)
        self._display.update(step, metrics, timings)

    def evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Record scores of the model as global step `step` left it, as a line of their own in `metrics.jsonl`."""
        if not self.enabled:
            return
        scores = {key: float(value) for key, value in scores.items()}
        self._write(step, scores, {})
        self._display.evaluation(step, scores)

    def scores(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Give the rows of the evaluation of the finished model to wandb; `evaluation.json` keeps them otherwise."""
        if self._wandb is not None:
            self._wandb.scores(rows)

    def first_step(self, step: int) -> None:
        """Record the time to the end of the first step of this process, global step `step`, as `startup_seconds`."""
        if self.enabled:  # not to wandb, which gets the values of this step later
            seconds = self._clock() - self._since
            self._files[1].write({"step": step, "startup_seconds": seconds})
            self.message(f"first step after {seconds:.1f} s")

    def checkpoint(self, step: int, seconds: float) -> None:
        """Record how long training paused for the checkpoint after global step `step`, as `checkpoint_seconds`."""
        if not self.enabled:
            return
        self._write(step, {}, {"checkpoint_seconds": seconds})
        self.message(f"checkpoint after step {step + 1}: training waited {seconds:.2f} s")

    def checkpoint_written(self, step: int, seconds: float) -> None:
        """Record how long that checkpoint took to write during training, as `checkpoint_write_seconds`."""
        if self.enabled:  # not to wandb, which ignores past steps
            self._files[1].write({"step": step, "checkpoint_write_seconds": seconds})

    def message(self, text: str) -> None:
        """Show a message; it is not recorded."""
        self._display.message(text)

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """Exclude the time of a block from images per second."""
        with self._throughput.untimed():
            yield

    def sync(self) -> None:
        """Return once all records are on disk: a checkpoint must not be newer than the records of its steps."""
        for file in self._files:
            file.sync()

    def close(self, exit_code: int = 0) -> None:
        """End display, files and wandb run; any code but 0 marks the latter as failed. A second call does nothing."""
        self._display.close()
        for file in self._files:
            file.close()
        if self._wandb:
            self._wandb.finish(exit_code)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(0 if kind is None else 1)

    def _write(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        for file, values in zip(self._files, (metrics, timings), strict=True):
            if values:
                file.write({"step": step, **values})
        if self._wandb:
            self._wandb.log(step, {**metrics, **{f"timings/{key}": value for key, value in timings.items()}})
