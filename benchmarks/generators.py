"""Synthetic images per second, compared with the published algorithm for fractals in the same process.

The baseline is a scalar numba version of the published algorithm (`scalar_ifs`); at small sizes it is faster than the
published program.

Lower bound on a CPU with vectors of 16 floats: a point takes 6 operations for its random bits, 7 (n - 1) to choose among n
maps, 8 to apply one and 10 to find its pixel: for n = 3, 38 operations for 16 points at two a cycle, 1.2 cycles; then a load,
an addition and a store of its own in the histogram, which cannot be vectorized: 1 cycle. A pixel takes three look-ups and three
stores of bytes for its color, 3 cycles, and 24 vector operations for cloud, intensity and blur, 1.5 cycles.
An image of any size takes 2048 discarded points and 768 colors: 1 µs at 4 GHz.
"""

import numpy as np

from wildfern.benchmarks.gpu_generators import gpu_rows
from wildfern.benchmarks.result import Benchmark, compare
from wildfern.benchmarks.scalar_ifs import scalar_sample, scalar_scene
from wildfern.generators import STREAMS, make_stream
from wildfern.generators.fractals.ifs_sampler import sample_systems

SIZES = ((224, 100_000), (64, 20_000), (32, 1_000))
SCENE = (224, 100_000)
CLASSES = 1000  # the default of fractaldb
BATCH = 64
THREADS_BATCH = 1024


class _Next:
    """Calls that draw the next `batch` samples of a stream."""

    def __init__(self, name: str, batch: int = BATCH, **arguments) -> None:
        self.stream, self.batch, self.first = make_stream(name, **arguments), batch, 0

    def __call__(self) -> None:
        self.stream.batch(np.arange(self.first, self.first + self.batch))
        self.first += self.batch


def run(seconds: float) -> Benchmark:
    """Full samples: fractals and scenes against the baseline, two threads against one, and every generator at 224 px."""
    systems, counts = sample_systems(0, np.arange(1000))
    rows = []
    for size, points in SIZES:
        given = {"size": size, "points": points}
        state = [0]

        def published(size: int = size, points: int = points, state: list[int] = state) -> None:
            for index in range(state[0], state[0] + BATCH):
                scalar_sample(systems[index % 1000][: counts[index % 1000]], size, points)
            state[0] += BATCH

        things = {"scalar numba": published, "wildfern": _Next("ifs", **given)}
        rows += compare(f"ifs, {size} px, {points:,} points", BATCH, things, seconds)

    def published_scenes() -> None:
        for _ in range(BATCH):
            scalar_scene(systems, counts, *SCENE)

    things = {"scalar numba": published_scenes, "wildfern": _Next("ifs_multi", size=SCENE[0], points=SCENE[1])}
    rows += compare(f"ifs_multi, {SCENE[0]} px, 1 to 5 fractals of {SCENE[1]:,} points", BATCH, things, seconds)
    for size, points in SIZES:
        given = {"size": size, "points": points}
        things = {f"{n} threads": _Next("ifs", THREADS_BATCH, **given, threads=n) for n in (1, 2)}
        rows += compare(f"ifs, {size} px, {points:,} points, by threads", THREADS_BATCH, things, seconds)
    for name in STREAMS:
        things = {"wildfern": _Next(name)}
        if name == "fractaldb":
            things["wildfern"].stream.batch(np.arange(CLASSES))  # searches its classes, once
        rows += compare(f"{name}, 224 px, defaults", BATCH, things, seconds)
    rows += gpu_rows(seconds)
    return Benchmark(
        "generators", "samples/s", "full samples, from jitter to blur; one thread unless stated otherwise", rows
    )
