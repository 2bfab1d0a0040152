"""Training steps as `quickstart` makes them, in turn in one process: the model alone on views made beforehand, the whole way from
fractals on, and lightly's documented SimCLR loop on the same pictures with the same backbone; with `compiled`, ours by torch.compile.

Beside it, by the arithmetic that a dry run counts: which share of a measured product of matrices (the ceiling) the model reaches.
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
        foot = step_footprint(method, make_optimizer, self.views.shape, self.batch_size, precision=self.precision)
        return foot.flops

    def lightly(self) -> LightlyLoop:
        pixels = self.mixture.read(torch.arange(16 * self.batch_size).numpy()).on_host().pixels
        settings = self.method_settings
        model = SimCLRModel(self.build_backbone(), settings["projection_hidden"], settings["projection_size"])
        return LightlyLoop(
            pixels, model, self.view_settings, settings["temperature"], self.batch_size, self.device
        )


def run(seconds: float, compiled: bool = False) -> Benchmark:
    """Pictures per second of each, and ratios to the model alone: 1 means that rendering and views cost nothing."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parts = Quickstart(device)
    made = in_layout(parts.views(parts.reader(0)), True)
    waited = {"wait": 0.0, "all": 0.0}
    top = {"rate": 0.0}

    def whole(step: Callable[[list[Tensor]], None], batches: Loader) -> None:
        began = time.perf_counter()
        step(in_layout(parts.views(next(batches)), True))
        waited["wait"] += batches.wait_seconds
        waited["all"] += time.perf_counter() - began

    with ExitStack() as stack:
        # The workers of lightly's loop are forked here, before this process has threads of its own.
        lightly = stack.enter_context(closing(parts.lightly()))
        plain = parts.step(compiled=False)
        batches = stack.enter_context(Loader(parts.reader, 0, 10**9, parts.threads))
        things = {
            "model alone": lambda: step_and_look(plain, made, parts, top),
            "fractals, views and model": lambda: whole(plain, batches),
            f"lightly's SimCLR loop, {WORKERS} workers": lightly,
        }
        if compiled:
            fused = parts.step(compiled=True)
            things["model alone, compiled"] = lambda: fused(made)
            things["fractals, views and model, compiled"] = lambda: whole(fused, batches)
        rows = compare("quickstart", parts.batch_size, things, seconds, lead=LEAD)
    return rows
