"""Pictures per second of the generators on one thread, against the published way of rendering, in turn in one process."""

import time
from collections.abc import Callable

import numpy as np

from wildfern.generators import make_stream
from wildfern.generators.ifs_sampler import sample_systems

from .scalar_ifs import scalar_sample

#: (size, points) of the published recipes: Anderson & Farrell at full and at small size, and fractal pair similarity.
SIZES = ((224, 100_000), (64, 20_000), (32, 1_000))
ROUNDS = 3


def _rate(render: Callable[[int, int], None], seconds: float, start: int) -> tuple[float, int]:
    """Pictures per second over at least `seconds`, and the first sample not rendered; doubles the batch up to 256."""
    begun, batch, done = time.perf_counter(), 1, 0
    while (spent := time.perf_counter() - begun) < seconds or not done:
        render(start + done, batch)
        done += batch
        batch = min(2 * batch, 256)
    return done / spent, start + done


def run(seconds: float = 3.0) -> dict:
    """Measure each size for about `seconds` per renderer: {"rows": [{name, size, points, … images per second, ratio}]}.

    Both take the same systems; the two alternate in `ROUNDS` rounds and the best round of each counts.
    """
    systems, counts = sample_systems(0, np.arange(1000))
    rows = []
    for size, points in SIZES:
        stream = make_stream("ifs", size=size, points=points)

        def published(first: int, count: int, size: int = size, points: int = points) -> None:
            for index in range(first, first + count):
                scalar_sample(systems[index % 1000][: counts[index % 1000]], size, points)

        def ours(first: int, count: int, stream=stream) -> None:
            stream.batch(np.arange(first, first + count))

        published(0, 1)
        ours(0, 1)
        best, start = [0.0, 0.0], [0, 0]
        for _ in range(ROUNDS):
            for which, render in enumerate((published, ours)):
                rate, start[which] = _rate(render, seconds / ROUNDS, start[which])
                best[which] = max(best[which], rate)
        rows.append(
            {
                "name": f"ifs {size} px, {points:,} points",
                "size": size,
                "points": points,
                "published_images_per_second": best[0],
                "images_per_second": best[1],
                "ratio": best[1] / best[0],
            }
        )
    return {"rows": rows}
