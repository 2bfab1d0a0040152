"""From a recipe to the parts that train: pictures, networks, numbers, processes."""

import os
from dataclasses import dataclass

import torch

from wildfern.launch.evaluating import choose_device
from wildfern.launch.run_folder import RunError, initial_backbone, seeded
from wildfern.recipes import Recipe
from wildfern.ssl.augmentation import Views
from wildfern.ssl.data import Mixture, open_source
from wildfern.ssl.methods import METHODS, Method
from wildfern.ssl.training import Plan
from wildfern.ssl.training.precision import strided_over_one_pixel


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is, and its device."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def lead(self) -> bool:
        """Whether this is the process that writes, evaluates and talks."""
        return self.rank == 0

    def agree(self, error: Exception | None) -> None:
        """Raise on every process what went wrong on the first, so that none waits for it in vain."""
        told = [error if error is None else str(error)]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(told, src=0)
        if error is not None:
            raise error
        if told[0] is not None:
            raise RunError(told[0])


def start(recipe: Recipe) -> Processes:
    """Join the other processes where the engine has any, and share the cores fairly."""
    device = choose_device(recipe.training.device)
    rank, world_size = 0, 1
    if recipe.engine.name == "deepspeed":
        from wildfern.ssl.training.deepspeed_engine import start_processes

        rank, local_rank, world_size = start_processes(device.type, recipe.engine.arguments["timeout_minutes"])
        if device.type == "cuda":
            device = torch.device("cuda", local_rank)
            torch.cuda.set_device(device)
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError("several processes were started, but engine.name is torch: set engine.name=deepspeed")
    threads = recipe.training.threads
    if threads is None and world_size > 1:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", world_size)))
        threads = max(1, (os.cpu_count() or 1) // local)
    if threads is not None:
        torch.set_num_threads(threads)
    return Processes(rank, world_size, device)


def open_mixture(recipe: Recipe) -> Mixture:
    """The training pictures. A generator's own seed is added to the recipe's, so that every part follows from the latter."""
    opened = []
    for entry in recipe.data:
        arguments = dict(entry.arguments)
        if "seed" in arguments:
            arguments["seed"] += recipe.seed
        opened.append((open_source(entry.source, "train", **arguments), entry.weight))
    return Mixture(opened, recipe.seed)


def build_method(recipe: Recipe) -> Method:
    """Backbone and method as training starts from them: a pure function of the recipe."""
    backbone = initial_backbone(recipe)
    with seeded(recipe.seed, "method"):
        return METHODS[recipe.method.name](backbone, recipe.training.steps, **recipe.method.arguments)


def plan_of(recipe: Recipe) -> Plan:
    """The loop's numbers."""
    training = recipe.training
    return Plan(
        seed=recipe.seed,
        total_steps=training.steps,
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        learning_rate=recipe.optimizer.arguments["learning_rate"],
        weight_decay=recipe.optimizer.arguments["weight_decay"],
        loader_threads=training.loader_threads,
        channels_last=training.channels_last,
        checkpoint_every=training.checkpoint_every,
        checkpoint_minutes=training.checkpoint_minutes,
        evaluate_every=recipe.evaluation.every,
        skip_nonfinite=training.skip_nonfinite,
    )


def check_backbone(recipe: Recipe, device: torch.device, method: Method, views: Views) -> None:
    """Try the backbone on one picture of each size; refuse what it cannot take, and bf16 where its gradient is wrong."""
    sizes = [size for _, size in views.shape]
    try:
        unsafe = strided_over_one_pixel(method.backbone, sizes)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise RunError(
            f"{recipe.model.backbone} does not take views of {', '.join(map(str, sizes))} px: {error} (vision transformers "
            "take several sizes with model.arguments.dynamic_img_size=true, another one with model.arguments.img_size)"
        ) from error
    if unsafe and recipe.training.precision == "bf16" and device.type == "cpu":
        name, size = unsafe[0]
        raise RunError(
            f"views of {size} px are too small for this backbone in bf16 on a CPU: {name} strides over a single pixel, where "
            "its gradient would be wrong; take larger views, model.stem=small, or training.precision=fp32"
        )
