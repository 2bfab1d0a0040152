"""Measured peak memory of training steps, to validate the dry run of `footprint`."""

from collections.abc import Callable

import torch
from torch import Tensor

from wildfern.ssl.methods import Batch
from wildfern.ssl.training.engine import TorchEngine
from wildfern.ssl.training.footprint import bytes_of


def measured_peak(
    engine: TorchEngine,
    view_shape: list[tuple[int, int]],
    images: int,
    *,
    channels: int = 3,
    view_dtype: torch.dtype = torch.float32,
    steps: int = 2,
) -> int:
    """Peak bytes, weights included, while `engine` trains on micro-batches of zeros.

    The first step, which creates the optimizer's state, is not counted.
    """
    device, done = engine.device, 0

    def step() -> None:
        nonlocal done
        views = [
            torch.zeros(count * images, channels, size, size, dtype=view_dtype, device=device)
            .to(memory_format=torch.channels_last)
            .unflatten(0, (count, images))
            for count, size in view_shape
        ]
        engine.backward(engine(Batch.from_views(views, step=done)).loss)
        engine.step(1e-6, 0.0)
        done += 1

    step()
    return peak_bytes(engine, step, steps - 1)


def peak_bytes(engine: TorchEngine, step: Callable[[], None], steps: int = 1) -> int:
    """Peak bytes, weights included, during calls of `step`, which trains `engine` and has been called before.

    On a GPU torch's `max_memory_allocated`; on a CPU the sum of allocations and releases that torch's profiler records, above
    the memory used before.
    """
    device = engine.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        for _ in range(steps):
            step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    networks = engine.method.networks()
    there = sum(bytes_of((*network.parameters(), *network.buffers())) for network in networks)
    states = engine.optimizer.state.values()
    there += bytes_of(value for state in states for value in state.values() if isinstance(value, Tensor))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        for _ in range(steps):
            step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return there + peak
