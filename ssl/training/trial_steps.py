"""A few real steps of a run, to measure their time and memory; nothing is written."""

import time
from dataclasses import dataclass

import torch

from wildfern.ssl.data import Loader
from wildfern.ssl.training.batch_reader import BatchReader
from wildfern.ssl.training.engine import TorchEngine
from wildfern.ssl.training.finite import FiniteWatch
from wildfern.ssl.training.loop import LoopConfig, train_step
from wildfern.ssl.training.measured_peak import peak_bytes
from wildfern.ssl.training.schedules import Schedule

LEAST, MOST = 2, 20  # timed steps


@dataclass(frozen=True)
class Trial:
    """What a few steps took. The first step, which compiles and creates the optimizer's state, is not among the timed ones."""

    batch_size: int
    steps: int  # timed
    step_seconds: float
    data_seconds: float  # for the data of one step, in one thread
    data_wait: float  # share of the timed steps
    peak: int | None  # bytes, weights included

    @property
    def images_per_second(self) -> float:
        return self.batch_size / self.step_seconds


def trial_steps(
    config: LoopConfig,
    engine: TorchEngine,
    reader: BatchReader,
    schedule: Schedule,
    seconds: float = 5.0,
    memory: bool = True,
) -> Trial:
    """Train for one step, then for timed ones during about `seconds` (2 to 20), then measure the `memory` of one more.

    Data is read as in training, by loader threads. Batches that they prepared before the timed steps would make these too short
    where data is the bottleneck: then the time is that of reading one batch, divided by the threads.
    """
    watch = FiniteWatch(engine, config.skip_nonfinite, reader.indices)
    reader(0)  # the first batch compiles kernels and opens files
    began = time.perf_counter()
    for part in range(config.accumulation):
        reader(part)
    data_seconds = time.perf_counter() - began
    done = 0
    with Loader(reader, 0, (MOST + 2) * config.accumulation, config.loader_threads) as loader:

        def step() -> None:
            nonlocal done
            train_step(min(done, config.total_steps - 1), config, engine, reader, loader, schedule, watch)
            done += 1

        step()
        _wait_for(engine.device)
        began, waited = time.perf_counter(), loader.total_wait_seconds
        while done <= LEAST or (done <= MOST and time.perf_counter() - began < seconds):
            step()
        _wait_for(engine.device)
        timed, elapsed = done - 1, time.perf_counter() - began
        waited = loader.total_wait_seconds - waited
        peak = peak_bytes(engine, step) if memory else None
    per_step = max(elapsed / timed, data_seconds / max(1, config.loader_threads))
    return Trial(config.batch_size, timed, per_step, data_seconds, waited / elapsed, peak)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
