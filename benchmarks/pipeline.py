"""Training steps as `quickstart` makes them, in turn in one process, and lightly's documented SimCLR loop beside them.

Ours are the model alone, on views made beforehand, and the whole way from fractals on; with `compiled`, also by torch.compile.
lightly's loop has the same pictures and backbone. What share of a measured product of matrices (the ceiling) the model reaches,
is told by the arithmetic that a dry run counts.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial

import torch
from torch import Tensor
from yaml import safe_load

from wildfern.benchmarks.lightly_loop import WORKERS, LightlyLoop, SimCLRModel
from wildfern.benchmarks.result import Benchmark, compare
from wildfern.recipes import recipe_text
from wildfern.ssl.augmentation import simclr
from wildfern.ssl.data import Loader, Mixture, open_source
from wildfern.ssl.methods import SimCLR
from wildfern.ssl.models import build_backbone
from wildfern.ssl.training import OPTIMIZERS, BatchReader, Plan, TorchEngine
from wildfern.ssl.training.footprint import step_footprint
from wildfern.ssl.training.input_precision import input_dtype
from wildfern.ssl.training.loop import in_layout

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product is the ceiling
CEILING = "product of matrices"
LEAD = 6  # calls before each turn, which use up what was made ahead while another thing ran


class Quickstart:
    """The bundled recipe's parts, each to be timed."""

    def __init__(self, device: torch.device) -> None:
        recipe = safe_load(recipe_text("quickstart"))
        self.device, self.backbone = device, recipe["model"]
        self.precision, self.batch_size = recipe["training"]["precision"], recipe["training"]["batch_size"]
        self.threads = recipe["training"].get("loader_threads", 1)
        sections = {name: dict(recipe[name]) for name in ("data", "views", "method")}
        for section in sections.values():
            section.pop("name", None)
        self.view_settings, self.method_settings = sections["views"], sections["method"]
        self.views = simclr(**self.view_settings).to(device)
        self.views.dtype = input_dtype(self.build_backbone(), self.precision, self.views)
        source = open_source(sections["data"].pop("source"), **sections["data"])
        plan = Plan(
            seed=0,
            total_steps=1,
            batch_size=self.batch_size,
            accumulation=1,
            learning_rate=1e-3,
            weight_decay=0.0,
            loader_threads=self.threads,
            channels_last=True,
            checkpoint_every=1,
            checkpoint_minutes=None,
            evaluate_every=None,
            skip_nonfinite=0,
        )
        self.mixture = Mixture([(source, 1.0)], 0)
        self.reader = BatchReader(plan, self.mixture, self.views, rank=0, world_size=1)

    def build_backbone(self) -> torch.nn.Module:
        return build_backbone(self.backbone["backbone"], **self.backbone.get("arguments", {}))

    def step(self, compiled: bool) -> Callable[[list[Tensor]], None]:
        """One training step on given views."""
        method = SimCLR(self.build_backbone(), 1, **self.method_settings)
        method.to(self.device, memory_format=torch.channels_last)
        if compiled:
            method.backbone.compile(dynamic=False)
        make_optimizer = partial(OPTIMIZERS["adamw"], learning_rate=1e-3)
        engine = TorchEngine(method, make_optimizer, 0.0, device=self.device, precision=self.precision)

        def step(views: list[Tensor]) -> None:
            loss, _ = engine(views, 0)
            engine.backward(loss)
            engine.step(0.0, 0.0)
            float(loss.detach())

        return step

    def flops(self) -> int:
        """Additions and multiplications of one step."""
        with torch.device("meta"):
            method = SimCLR(self.build_backbone(), 1, **self.method_settings)
        make_optimizer = partial(OPTIMIZERS["adamw"], learning_rate=1e-3)
        foot = step_footprint(
            method,
            make_optimizer,
            self.views.shape,
            self.batch_size,
            precision=self.precision,
            view_dtype=self.views.dtype,
        )
        return foot.flops

    def lightly(self) -> LightlyLoop:
        pixels = self.mixture.read(torch.arange(16 * self.batch_size).numpy()).on_host().pixels
        settings = self.method_settings
        model = SimCLRModel(self.build_backbone(), settings["projection_hidden"], settings["projection_size"])
        return LightlyLoop(pixels, model, self.view_settings, settings["temperature"], self.batch_size, self.device)


class WholeWay:
    """Fractals, views and step; keeps count of the time and of the part of it spent waiting for data."""

    def __init__(self, parts: Quickstart, step: Callable[[list[Tensor]], None], batches: Loader) -> None:
        self.parts, self.step, self.batches = parts, step, batches
        self.forget()

    def forget(self) -> None:
        """Count from here on."""
        self.waited = self.took = 0.0

    def __call__(self) -> None:
        began = time.perf_counter()
        self.step(in_layout(self.parts.views(next(self.batches)), True))
        self.waited += self.batches.wait_seconds
        self.took += time.perf_counter() - began


def run(seconds: float, compiled: bool = False) -> Benchmark:
    """Pictures per second of each, and ratios to the model alone: 1 means that rendering and views cost nothing."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parts = Quickstart(device)
    made = in_layout(parts.views(parts.reader(0)), True)
    side = SIDE[device.type]
    matrix = torch.randn(side, side, device=device, dtype=DTYPES[parts.precision])
    with ExitStack() as stack:
        lightly = stack.enter_context(closing(parts.lightly()))
        plain = parts.step(compiled=False)
        batches = stack.enter_context(Loader(parts.reader, 0, 10**9, parts.threads))
        whole = WholeWay(parts, plain, batches)
        things = {
            "model alone": lambda: plain(made),
            "fractals, views and model": whole,
            f"lightly's SimCLR loop, {WORKERS} workers": lightly,
            CEILING: lambda: finished(matrix @ matrix),
        }
        if compiled:
            fused = parts.step(compiled=True)
            things["model alone, compiled"] = lambda: fused(made)
            things["fractals, views and model, compiled"] = WholeWay(parts, fused, batches)
        rows = compare("quickstart", parts.batch_size, things, seconds, lead=LEAD, at_turn=forget)
    calls = {row["what"]: row["rate"] / parts.batch_size for row in rows}
    reached, ceiling = calls["model alone"] * parts.flops(), calls[CEILING] * 2 * side**3
    figures = {
        "whole_to_lightly": calls["fractals, views and model"] / calls[f"lightly's SimCLR loop, {WORKERS} workers"],
        "data_wait": whole.waited / whole.took,
        "model_tflops": reached / 1e12,
        "ceiling_tflops": ceiling / 1e12,
        "utilization": reached / ceiling,
    }
    words = (
        f"{parts.backbone['backbone']} on {device}, two views of each picture. "
        f"The whole way: {figures['whole_to_lightly']:.2f} × lightly's loop, {figures['data_wait']:.1%} of it waiting for data. "
        f"The model alone: {reached / 1e12:.3g} TFLOP/s, "
        f"{figures['utilization']:.0%} of the {ceiling / 1e12:.3g} TFLOP/s of a product of {parts.precision} matrices "
        f"of side {side}."
    )
    rows = [row for row in rows if row["what"] != CEILING]
    return Benchmark("pipeline", "pictures/s", words, rows, figures)


def forget(thing: Callable[[], object]) -> None:
    """A turn begins: what was made ahead of it has been used up."""
    if isinstance(thing, WholeWay):
        thing.forget()


def finished(product: Tensor) -> None:
    """Wait for a result that a GPU may still be at."""
    product[0, 0].item()
