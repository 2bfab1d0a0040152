"""Fractals per second on one thread, against the published way of rendering, in turn in one process.

The yardstick is our scalar numba version of the published algorithm, written from its formulas (`scalar_ifs`); it is itself
faster at small sizes than the published program. Floor of a picture: one multiply-add map, one pseudo-random number and one
histogram increment a point, and one pass over the pixels for color, background, composite and blur.
"""

import numpy as np

from wildfern.benchmarks.result import Benchmark, compare
from wildfern.benchmarks.scalar_ifs import scalar_sample
from wildfern.generators import make_stream
from wildfern.generators.ifs_sampler import sample_systems

SIZES = ((224, 100_000), (64, 20_000), (32, 1_000))
BATCH = 64


def run(seconds: float) -> Benchmark:
    """Full samples (jitter, render, color, background, composite, blur) at the three published sizes."""
    systems, counts = sample_systems(0, np.arange(1000))
    rows = []
    for size, points in SIZES:
        stream, state = make_stream("ifs", size=size, points=points), [0, 0]

        def published(size: int = size, points: int = points, state: list[int] = state) -> None:
            for index in range(state[0], state[0] + BATCH):
                scalar_sample(systems[index % 1000][: counts[index % 1000]], size, points)
            state[0] += BATCH

        def ours(stream=stream, state: list[int] = state) -> None:
            stream.batch(np.arange(state[1], state[1] + BATCH))
            state[1] += BATCH

        rows += compare(f"{size} px, {points:,} points", BATCH, {"scalar numba": published, "wildfern": ours}, seconds)
    return Benchmark("generators", "pictures/s, one thread", "full samples: jitter to blur", rows)
