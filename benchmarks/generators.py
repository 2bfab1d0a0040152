"""Synthetic pictures per second, against the published way of rendering fractals, in turn in one process.

The yardstick is our scalar numba version of the published algorithm, written from its formulas (`scalar_ifs`); it is itself
faster at small sizes than the published program.

The floor of a fractal, on a processor with vectors of 16 floats: a point takes 6 operations for its random bits, 7 (n - 1) to
choose among n maps, 8 to apply one and 10 to find its pixel. For n = 3 these are 38 operations for 16 points at two a cycle, 1.2
cycles a point; then a load, an addition and a store of its own in the histogram, in which no vector helps: at least 1 cycle.
"""

import numpy as np

from wildfern.benchmarks.gpu_generators import gpu_rows
from wildfern.benchmarks.result import Benchmark, compare
from wildfern.benchmarks.scalar_ifs import scalar_sample, scalar_scene
from wildfern.generators import STREAMS, make_stream
from wildfern.generators.fractals.ifs_sampler import sample_systems

SIZES = ((224, 100_000), (64, 20_000), (32, 1_000))
BATCH = 64


class _Rows:
    """Calls that draw the next `BATCH` samples of a stream."""

    def __init__(self, name: str, **arguments) -> None:
        self.stream, self.next = make_stream(name, **arguments), 0

    def __call__(self) -> None:
        self.stream.batch(np.arange(self.next, self.next + BATCH))
        self.next += BATCH


def run(seconds: float) -> Benchmark:
    """Full samples: fractals and scenes against the yardstick, two threads against one, and every family at 224 px."""
    systems, counts = sample_systems(0, np.arange(1000))
    rows = []
    for size, points in SIZES:
        given = {"size": size, "points": points}
        state = [0]

        def published(size: int = size, points: int = points, state: list[int] = state) -> None:
            for index in range(state[0], state[0] + BATCH):
                scalar_sample(systems[index % 1000][: counts[index % 1000]], size, points)
            state[0] += BATCH

        things = {"scalar numba": published, "wildfern": _Rows("ifs", **given)}
        rows += compare(f"ifs, {size} px, {points:,} points", BATCH, things, seconds)

    def published_scenes() -> None:
        for _ in range(BATCH):
            scalar_scene(systems, counts, 224, 100_000)

    things = {"scalar numba": published_scenes, "wildfern": _Rows("ifs_multi")}
    rows += compare("ifs_multi, 224 px, 1 to 5 fractals of 100,000 points", BATCH, things, seconds)
    for size, points in SIZES:
        given = {"size": size, "points": points}
        things = {"one thread": _Rows("ifs", **given), "two threads": _Rows("ifs", **given, threads=2)}
        rows += compare(f"ifs, {size} px, {points:,} points, threads", BATCH, things, seconds)
    for name in STREAMS:
        rows += compare(f"{name}, 224 px, as it is", BATCH, {"wildfern": _Rows(name)}, seconds)
    rows += gpu_rows(seconds)
    return Benchmark(
        "generators", "samples/s", "full samples, jitter to blur; one thread where nothing else is said", rows
    )
