"""Training steps of a recipe and lightly's documented SimCLR loop, in turn in one process.

Measured are the model alone on precomputed views, the views alone, and the whole pipeline; with `compiled`, also the model with
torch.compile. lightly's loop has the same images and backbone. The utilization is the model's arithmetic, counted in a dry run,
relative to a measured matrix product (the ceiling).
"""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from wildfern.benchmarks.lightly_loop import WORKERS, LightlyLoop, SimCLRModel
from wildfern.benchmarks.result import Benchmark, compare
from wildfern.ssl.augmentation import Views
from wildfern.ssl.data import Loader, Mixture
from wildfern.ssl.methods import Batch, Method
from wildfern.ssl.training import BatchReader, LoopConfig, TorchEngine
from wildfern.ssl.training.engine import MakeOptimizer, Precision
from wildfern.ssl.training.footprint import step_footprint
from wildfern.ssl.training.input_precision import input_dtype

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SIDE = {"cpu": 2048, "cuda": 8192}  # side of the matrices whose product is the ceiling
MODEL, VIEWS, WHOLE = "model alone", "views alone", "images, views and model"
LIGHTLY, CEILING = f"lightly's SimCLR loop, {WORKERS} workers", "product of matrices"
LEAD = 6  # untimed calls before each turn, which use up batches prefetched during the previous turn
MOST_LIGHTLY = 2048  # images of lightly's loop, held in memory and repeated


@dataclass(frozen=True)
class LightlySettings:
    """What lightly's loop takes from a recipe: the arguments of its views and method, under wildfern's names."""

    views: dict
    hidden: int
    size: int
    temperature: float


@dataclass(frozen=True)
class Parts:
    """The parts of a recipe. `lightly` is None unless the recipe is SimCLR on two views, as lightly's loop is."""

    recipe: str
    backbone: str
    device: torch.device
    precision: Precision
    config: LoopConfig
    mixture: Mixture
    views: Views
    build_backbone: Callable[[], nn.Module]
    build_method: Callable[[], Method]
    make_optimizer: MakeOptimizer
    compile: Callable[[Method], None]
    lightly: LightlySettings | None

    @property
    def micro_batch(self) -> int:
        """Images of one forward and backward pass."""
        return self.config.batch_size // self.config.accumulation


class Step:
    """One training step on given views, of one micro-batch; as in training, the CPU may be a step ahead of a GPU."""

    def __init__(self, parts: Parts, compiled: bool) -> None:
        method = parts.build_method()
        layout = {"memory_format": torch.channels_last} if parts.config.channels_last else {}
        for module in (method, *method.teachers().values()):
            module.to(parts.device, **layout)
        if compiled:
            parts.compile(method)
        self.number, self.before = (
            parts.config.total_steps // 2,
            None,
        )  # after warm-ups, during which some layers are frozen
        arguments = {"device": parts.device, "precision": parts.precision}
        self.engine = TorchEngine(method, parts.make_optimizer, parts.config.weight_decay, **arguments)

    def __call__(self, batch: Batch) -> None:
        loss = self.engine(replace(batch, step=self.number)).loss
        self.engine.backward(loss)
        self.engine.step(0.0, 0.0)
        self.engine.method.after_step(self.number, self.engine.gather)
        if self.before is not None:
            float(self.before)
        self.before = loss.detach()


class WholeWay:
    """Images, views and step; measures the time and the part of it spent waiting for data."""

    def __init__(self, reader: BatchReader, step: Step, batches: Loader) -> None:
        self.reader, self.step, self.batches = reader, step, batches
        self.forget()

    def forget(self) -> None:
        """Reset the measurement."""
        self.waited = self.took = 0.0

    def __call__(self) -> None:
        began = time.perf_counter()
        self.step(self.reader.batch(next(self.batches)))
        self.waited += self.batches.wait_seconds
        self.took += time.perf_counter() - began


def run(parts: Parts, seconds: float, compiled: bool = False) -> Benchmark:
    """Images per second of each, and ratios to the model alone: 1 means that rendering and views are free."""
    device = parts.device
    method = parts.build_method()
    reader = BatchReader(
        parts.mixture,
        parts.views.to(device),
        seed=parts.config.seed,
        batch_size=parts.config.batch_size,
        accumulation=parts.config.accumulation,
        channels_last=parts.config.channels_last,
        masks=method.needs.masks,
    )
    parts.views.dtype = input_dtype(method, parts.precision, parts.views)
    prepared = reader(0)
    made = reader.batch(prepared)
    side = SIDE[device.type]
    matrix = torch.randn(side, side, device=device, dtype=DTYPES[parts.precision])
    with ExitStack() as stack:
        plain = Step(parts, compiled=False)
        batches = stack.enter_context(Loader(reader, 0, 10**9, parts.config.loader_threads))
        whole = WholeWay(reader, plain, batches)
        things = {
            MODEL: lambda: plain(made),
            VIEWS: lambda: finished(parts.views(prepared.prepared)[0]),
            WHOLE: whole,
            CEILING: lambda: finished(matrix @ matrix),
        }
        if parts.lightly is not None:
            things[LIGHTLY] = stack.enter_context(closing(lightly_loop(parts)))
        if compiled:
            fused = Step(parts, compiled=True)
            things[f"{MODEL}, compiled"] = lambda: fused(made)
            things[f"{WHOLE}, compiled"] = WholeWay(reader, fused, batches)
        rows = compare(parts.recipe, parts.micro_batch, things, seconds, lead=LEAD, at_turn=forget)
    return _report(parts, {row["what"]: row["rate"] for row in rows}, rows, whole.waited / whole.took)


def _report(parts: Parts, rates: dict[str, float], rows: list[dict], data_wait: float) -> Benchmark:
    side = SIDE[parts.device.type]
    reached = rates[MODEL] / parts.micro_batch * step_flops(parts)
    ceiling = rates[CEILING] / parts.micro_batch * 2 * side**3
    figures = {
        "data_wait": data_wait,
        "views_to_model": rates[MODEL] / rates[VIEWS],
        "model_tflops": reached / 1e12,
        "ceiling_tflops": ceiling / 1e12,
        "utilization": reached / ceiling,
    }
    words = (
        f"{parts.backbone} on {parts.device}, {parts.precision}, {parts.micro_batch} images at a time, views of "
        f"{' and '.join(f'{count} × {size}' for count, size in parts.views.shape)} px. Whole pipeline: {data_wait:.1%} of the "
        f"time waiting for data. Views take {figures['views_to_model']:.1%} of the time of the model alone, which does "
        f"{reached / 1e12:.3g} TFLOP/s, {figures['utilization']:.0%} of the {ceiling / 1e12:.3g} of a matrix product "
        f"in {parts.precision}, side {side}."
    )
    if LIGHTLY in rates:
        figures["whole_to_lightly"] = rates[WHOLE] / rates[LIGHTLY]
        words += f" The whole pipeline is {figures['whole_to_lightly']:.2f} × as fast as lightly's loop."
    if f"{MODEL}, compiled" in rates:
        figures["compiled_to_plain"] = rates[f"{MODEL}, compiled"] / rates[MODEL]
        words += f" torch.compile makes the model {figures['compiled_to_plain']:.2f} × as fast."
    rows = [row for row in rows if row["what"] != CEILING]
    return Benchmark("pipeline", "images/s", words, rows, figures)


def step_flops(parts: Parts) -> int:
    """Additions and multiplications of one forward and backward pass of all views, teachers included."""
    with torch.device("meta"):
        method = parts.build_method()
    foot = step_footprint(
        method,
        parts.make_optimizer,
        parts.views.shape,
        parts.micro_batch,
        precision=parts.precision,
        channels=parts.views.channels,
        view_dtype=parts.views.dtype,
        step=parts.config.total_steps // 2,
    )
    return foot.flops


def lightly_loop(parts: Parts) -> LightlyLoop:
    """lightly's loop on this recipe's images, with its backbone."""
    pixels = parts.mixture.read(np.arange(min(16 * parts.micro_batch, MOST_LIGHTLY))).on_host().pixels
    given = parts.lightly
    model = SimCLRModel(parts.build_backbone(), given.hidden, given.size)
    return LightlyLoop(pixels, model, given.views, given.temperature, parts.micro_batch, parts.device)


def forget(thing: Callable[[], object]) -> None:
    """Reset the measurement at the start of a turn, after prefetched batches are used up."""
    if isinstance(thing, WholeWay):
        thing.forget()


def finished(result: Tensor) -> None:
    """Wait for a result that a GPU may still be computing."""
    result.flatten()[0].item()
