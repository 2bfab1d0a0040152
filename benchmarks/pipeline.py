"""Training steps as `quickstart` makes them: the model alone on views made beforehand, and the whole way from fractals on."""

from functools import partial

import torch
from yaml import safe_load

from wildfern.benchmarks.result import Benchmark, compare
from wildfern.recipes import recipe_text
from wildfern.ssl.augmentation import simclr
from wildfern.ssl.data import Loader, Mixture, open_source
from wildfern.ssl.methods import SimCLR
from wildfern.ssl.models import build_backbone
from wildfern.ssl.training import OPTIMIZERS, BatchReader, Plan, TorchEngine
from wildfern.ssl.training.loop import to_channels_last


def run(seconds: float) -> Benchmark:
    """Pictures per second of the two, and their ratio: 1 means that rendering and views cost nothing."""
    recipe = safe_load(recipe_text("quickstart"))
    sections = {name: dict(recipe[name]) for name in ("data", "views", "method")}
    for section in sections.values():
        section.pop("name", None)
    batch_size, threads = recipe["training"]["batch_size"], recipe["training"].get("loader_threads", 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = build_backbone(recipe["model"]["backbone"], **recipe["model"].get("arguments", {}))
    method = SimCLR(backbone, 1, **sections["method"]).to(device, memory_format=torch.channels_last)
    engine = TorchEngine(
        method,
        partial(OPTIMIZERS["adamw"], learning_rate=1e-3),
        0.0,
        device=device,
        precision=recipe["training"]["precision"],
    )
    plan = Plan(0, 1, batch_size, 1, 1e-3, 0.0, threads, True, 1, None, None)
    mixture = Mixture([(open_source(sections["data"].pop("source"), **sections["data"]), 1.0)], 0)
    reader = BatchReader(plan, mixture, simclr(**sections["views"]).to(device), rank=0, world_size=1)
    made = to_channels_last(reader.views(reader(0)))

    def step(views: list[torch.Tensor]) -> None:
        loss, _ = engine(views, 0)
        engine.backward(loss)
        engine.step(0.0, 0.0)
        float(loss.detach())

    with Loader(reader, 0, 10**9, threads) as batches:
        things = {
            "model alone": lambda: step(made),
            "fractals, views and model": lambda: step(to_channels_last(reader.views(next(batches)))),
        }
        rows = compare("quickstart", batch_size, things, seconds)
    return Benchmark(
        "pipeline", "pictures/s", f"{recipe['model']['backbone']} on {device}, two views of each picture", rows
    )
