"""Dependence of the quickstart's first steps on torch's number of threads: rounding, or a fault?

Run the same steps with one and with two threads, in float64, float32 and bfloat16 autocast, in both memory layouts, and compare.
A difference that shrinks with the rounding unit of the type is rounding; one that stays is a fault. SGD in place of AdamW shows
what the optimizer adds: AdamW's first step divides each gradient by its own absolute value, so its sign alone decides.

    OMP_NUM_THREADS=2 python -m wildfern.benchmarks.threads --json benchmarks/results/threads.json
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wildfern.generators.counter_rng import key
from wildfern.ssl.augmentation import simclr
from wildfern.ssl.data import Mixture, open_source
from wildfern.ssl.methods import Batch, SimCLR
from wildfern.ssl.models import Backbone
from wildfern.ssl.tracking import environment
from wildfern.ssl.training.parameter_groups import parameter_groups

STEPS, BATCH, SIZE = 4, 64, 48  # batch and views of the recipe `quickstart`; its network with the usual stem
NETWORK = {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256], "zero_init_last": False}
PRECISIONS = ("fp64", "fp32", "bf16")
LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
OPTIMIZERS = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


@dataclass
class Trace:
    """Results of one short run."""

    start: Tensor  # all initial weights, float64[P]
    views: list[Tensor] = field(default_factory=list)  # of each step
    losses: list[float] = field(default_factory=list)  # of each step
    normalized: Tensor | None = None  # step 0: output of the first batch normalization
    gradient: Tensor | None = None  # step 0: float64[P]
    weights: Tensor | None = None  # after step 0: float64[P]


def view_batches() -> Iterator[Tensor]:
    """The quickstart's views of each step: float32[2, 64, 3, 48, 48]."""
    fractals = open_source("ifs", size=SIZE, points=2000, classes=100_000, background=False)
    images = Mixture([(fractals, 1.0)], seed=0)
    views = simclr(
        size=SIZE, crop_scale=(0.4, 1.0), flip=0.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur=0.0
    )
    for step in range(STEPS):
        pixels = images.read(np.arange(step * BATCH, (step + 1) * BATCH)).pixels
        yield views(views.prepare(pixels, 0, step, np.arange(BATCH)))[0]


def run(threads: int, precision: str, layout: str, optimizer: str, learning_rate: float) -> Trace:
    """The first steps with this number of threads of torch; deterministic otherwise."""
    torch.set_num_threads(threads)
    torch.manual_seed(key("threads"))
    method = SimCLR(Backbone("resnet18", **NETWORK), STEPS, temperature=0.1, projection_hidden=512)
    dtype = torch.float64 if precision == "fp64" else torch.float32
    method.to(dtype=dtype, memory_format=LAYOUTS[layout]).train()
    update = OPTIMIZERS[optimizer](parameter_groups(method.named_parameters(), 1e-4), lr=learning_rate)
    trace = Trace(flat(method.parameters()))

    def note(module: nn.Module, inputs: tuple, result: Tensor) -> None:
        if trace.normalized is None:
            trace.normalized = result.detach().double()

    method.backbone.network.bn1.register_forward_hook(note)
    for step, views in enumerate(view_batches()):
        trace.views.append(views)
        views = views.to(dtype).flatten(0, 1).contiguous(memory_format=LAYOUTS[layout]).unflatten(0, (2, -1))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = method(Batch.from_views([views], step=step)).loss
        loss.backward()
        trace.losses.append(loss.item())
        if step == 0:
            trace.gradient = flat(p.grad for p in method.parameters())
        update.step()
        update.zero_grad()
        if step == 0:
            trace.weights = flat(method.parameters())
    return trace


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """All numbers of all tensors, in float64."""
    return torch.cat([t.detach().double().flatten() for t in tensors])


def compare(one: Trace, two: Trace) -> dict:
    """The differences between two runs; `relative` ones are norms of differences over norms."""

    def relative(a: Tensor, b: Tensor) -> float:
        return float((a - b).norm() / a.norm())

    step_size = (one.weights - one.start).norm()
    return {
        "views_equal": all(torch.equal(a, b) for a, b in zip(one.views, two.views, strict=True)),
        "initial_weights_equal": torch.equal(one.start, two.start),
        "batch_norm_relative": relative(one.normalized, two.normalized),
        "gradient_relative": relative(one.gradient, two.gradient),
        "gradient_sign_flips": float((one.gradient * two.gradient < 0).double().mean()),
        "update_relative": float((one.weights - two.weights).norm() / step_size),
        "loss_relative": [abs(a - b) / a for a, b in zip(one.losses, two.losses, strict=True)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="of AdamW; SGD takes ten times as much")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for layout in LAYOUTS:
        for precision in PRECISIONS:
            for optimizer in OPTIMIZERS:
                rate = given.learning_rate * (10 if optimizer == "sgd" else 1)
                one, two = (run(threads, precision, layout, optimizer, rate) for threads in (1, 2))
                rows.append({"layout": layout, "precision": precision, "optimizer": optimizer, **compare(one, two)})
                print(json.dumps(rows[-1]), flush=True)
    if given.json:
        settings = {"benchmark": "threads", "learning_rate": given.learning_rate, "steps": STEPS, "batch_size": BATCH}
        text = json.dumps(settings | {"rows": rows, "environment": environment()}, indent=2)
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
