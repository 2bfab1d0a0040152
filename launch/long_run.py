"""Messages about runs that would take long on a CPU: expected from FLOPs before the first step, and measured after a few."""

import time
from collections.abc import Callable
from contextlib import suppress

import torch
from torch.utils.flop_counter import FlopCounterMode

from wildfern.launch import estimate as estimates
from wildfern.launch.backbones import recipe_backbone
from wildfern.launch.errors import RunError
from wildfern.launch.expected_time import UTILIZATION, matrix_flops, rough_duration
from wildfern.recipes import Recipe
from wildfern.ssl.augmentation import VIEWS
from wildfern.ssl.tracking.formatting import speed

LONG_EXPECTED = 24 * 3600  # seconds; what is expected from FLOPs may be wrong by a factor of two
LONG_MEASURED = 2 * 3600
FEW_PIXELS = 10_000_000  # of all views of a run: no network takes long for these
STEPS, SECONDS, LEAST_STEPS = 10, 60.0, 2  # measured: 10 steps after the first, or those of a minute, but at least 2
SHORTER = "a smaller recipe is quickstart, and wildfern init FOLDER makes one for an hour"


def expected_long_run(recipe: Recipe, device: torch.device, done: int = 0, processes: int = 1) -> list[str]:
    """A message if the rest of a run, after `done` steps, is expected to take more than a day on this CPU."""
    views, training = VIEWS[recipe.views.name](**recipe.views.arguments), recipe.training
    steps = training.steps - done
    pixels = steps * training.batch_size * sum(count * size**2 for count, size in views.shape)
    if device.type != "cpu" or pixels < FEW_PIXELS:
        return []
    rate = UTILIZATION * processes * matrix_flops(device, training.precision)
    flops = 3 * training.batch_size * _forward_flops(recipe, views.shape, views.channels)
    if steps * flops < LONG_EXPECTED * rate:
        return []
    if processes == 1:  # otherwise the dry run, on this rank alone, would wait for the others
        with suppress(RunError):  # of a method that reads values
            flops = estimates.estimate(recipe, 1).step_flops  # with heads and teachers
    seconds = steps * flops / rate
    if seconds < LONG_EXPECTED:
        return []
    return [
        f"about {rough_duration(seconds)} on this CPU, expected from {flops / 1e12:,.3g} TFLOP per step; --dry-run measures a "
        f"few steps and starts nothing; {SHORTER}"
    ]


def _forward_flops(recipe: Recipe, shape: list[tuple[int, int]], channels: int) -> float:
    """FLOPs of the backbone alone on all views of an image; 0 if it has none without weights or on torch's meta device."""
    try:
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            backbone, total = recipe_backbone(recipe).eval(), 0
            for count, size in shape:
                before = counter.get_total_flops()
                backbone(torch.empty(1, channels, size, size))
                total += count * (counter.get_total_flops() - before)
        return total
    except (RuntimeError, NotImplementedError, ValueError, AssertionError):
        return 0.0


class MeasuredLongRun:
    """Called after each step of a run on a CPU: says once, after a few of them, how long the rest takes if that is long."""

    def __init__(
        self, recipe: Recipe, say: Callable[[str], None], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.steps, self.batch_size = recipe.training.steps, recipe.training.batch_size
        self._say, self._clock = say, clock
        self._first: tuple[int, float] | None = None  # step, and the time after it
        self._done = False

    def __call__(self, step: int) -> None:
        if self._done:
            return
        if self._first is None:  # compiles kernels and creates the optimizer's state: not measured
            self._first = (step, self._clock())
            return
        timed, elapsed = step - self._first[0], self._clock() - self._first[1]
        if timed < STEPS and (timed < LEAST_STEPS or elapsed < SECONDS):
            return
        self._done = True
        per_step = elapsed / timed
        left = (self.steps - step - 1) * per_step
        if left > LONG_MEASURED:
            self._say(self._message(timed, per_step, left))

    def _message(self, timed: int, per_step: float, left: float) -> str:
        rate = self.batch_size / per_step
        images = speed(rate) if rate >= 1 else f"{rate:.2g}"
        fitting = int(3600 / per_step)
        digits = 10 ** max(0, len(str(fitting)) - 2)
        hour = (
            f"training.steps={fitting // digits * digits} takes an hour"
            if fitting
            else "one step takes more than an hour"
        )
        return f"about {rough_duration(left)} left on this CPU at {images} images/s (mean of {timed} steps); {hour}; {SHORTER}"
