"""Fractals per second on a GPU against one CPU thread, in turn in one process; no rows without a GPU.

A batch on a GPU is timed by the GPU's own clock, from its first launch to its last image, many batches in a row: the
CPU fills the table of one batch while the GPU renders the one before, so the slower of the two sets the rate.
"""

from functools import partial

import numpy as np
import torch

from wildfern.benchmarks.result import ROUNDS, compare
from wildfern.generators import Stream, make_stream

GENERATORS = ("ifs", "ifs_multi", "ifs_pair")
BATCHES = (512, 64)
ON_PROCESSOR = 64


def gpu_rows(seconds: float) -> list[dict]:
    """Rows of a `Benchmark`, in samples/s: full samples of 224 px and 100,000 points; none without a GPU."""
    if not torch.cuda.is_available():
        return []
    rows = []
    for name in GENERATORS:
        case = f"{name}, 224 px, 100,000 points, {torch.cuda.get_device_name()}"
        draw = partial(make_stream(name).batch, np.arange(ON_PROCESSOR))
        rows += compare(case, ON_PROCESSOR, {"CPU, one thread": draw}, seconds)
        baseline, on_gpu = rows[-1]["rate"], make_stream(name, device="cuda")
        for size in BATCHES:
            rate = max(gpu_rate(on_gpu, size, seconds / ROUNDS) for _ in range(ROUNDS))
            rows.append({"case": case, "what": f"GPU, batches of {size}", "rate": rate, "ratio": rate / baseline})
    return rows


def gpu_rate(stream: Stream, size: int, seconds: float) -> float:
    """Samples per second of a stream on a GPU, in batches of `size`, measured for about `seconds`."""

    def milliseconds(batches: int) -> float:
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for batch in range(batches):
            stream.batch(np.arange(batch * size, (batch + 1) * size))
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop)

    milliseconds(3)  # compiles, and fills the allocator's cache
    batches = max(3, int(1000 * seconds / (milliseconds(3) / 3)))
    return 1000 * batches * size / milliseconds(batches)
