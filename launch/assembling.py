"""From a recipe to the parts that train: images, networks, numbers, processes."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch

from wildfern.launch.evaluating import choose_device
from wildfern.launch.run_folder import RunError, initial_backbone, seeded
from wildfern.recipes import Recipe
from wildfern.recipes.schema import DataEntry
from wildfern.ssl.augmentation import VIEWS, Views
from wildfern.ssl.data import Mixture, open_source
from wildfern.ssl.methods import METHODS, Method
from wildfern.ssl.training import LoopConfig, OnlineProbe
from wildfern.ssl.training.heartbeat import Heartbeat, join_heartbeat
from wildfern.ssl.training.long_timeout_group import long_timeout_group
from wildfern.ssl.training.precision import computes_in_bf16, strided_over_one_pixel

T = TypeVar("T")

MOST_PROBED_CLASSES = 100_000


@dataclass(frozen=True)
class DistributedContext:
    """Which of how many processes this is, and its device."""

    rank: int
    world_size: int
    device: torch.device
    heartbeat: Heartbeat | None = None  # where there are several

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes, evaluates and talks."""
        return self.rank == 0

    def leave(self) -> None:
        """Say farewell to the others, after the last that is done together: how long each stays from here is its own affair."""
        if self.heartbeat is not None:
            self.heartbeat.leave()

    def barrier(self) -> None:
        """Return once every process has called it, however long one of them takes."""
        if self.world_size > 1:
            torch.distributed.barrier(group=long_timeout_group())

    def broadcast_from_main(self, work: Callable[[], T]) -> T:
        """What `work` returns on the first process, for every one, however long it takes; its ValueError is everybody's."""
        found, error = [None], None
        if self.is_main:
            try:
                found = [work()]
            except ValueError as caught:
                error = caught
        self.raise_on_all(error)
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(found, src=0, group=long_timeout_group())
        return found[0]

    def raise_on_all(self, error: Exception | None) -> None:
        """Raise on every process what went wrong on the first, so that none waits for it in vain."""
        told = [error if error is None else str(error)]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(told, src=0, group=long_timeout_group())
        if error is not None:
            raise error
        if told[0] is not None:
            raise RunError(told[0])


@contextmanager
def started(recipe: Recipe) -> Iterator[DistributedContext]:
    """The processes of a run, listening to one another's heartbeat where there are several."""
    context = start(recipe)
    with context.heartbeat or nullcontext():
        yield context


def start(recipe: Recipe) -> DistributedContext:
    """Join the other processes where the engine has any, and share the cores fairly."""
    device = choose_device(recipe.training.device)
    rank, world_size = 0, 1
    if recipe.engine.name == "deepspeed":
        from wildfern.ssl.training.deepspeed_engine import start_processes

        rank, local_rank, world_size = start_processes(device.type, recipe.engine.arguments["timeout_minutes"])
        if device.type == "cuda":
            device = own_gpu(local_rank)
            torch.cuda.set_device(device)
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError("several processes were started, but engine.name is torch: set engine.name=deepspeed")
    threads = recipe.training.threads
    if threads is None and world_size > 1:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", world_size)))
        threads = fair_threads(local, os.environ)
    if threads is not None:
        torch.set_num_threads(threads)
    if world_size == 1:
        return DistributedContext(rank, world_size, device)
    # Half of the time that a collective may take: who is lost is then named before the others give up waiting.
    silence = 30.0 * recipe.engine.arguments["timeout_minutes"]
    return DistributedContext(
        rank, world_size, device, join_heartbeat(rank, world_size, os.environ["MASTER_ADDR"], silence)
    )


def fair_threads(local: int, environment: Mapping[str, str]) -> int | None:
    """Threads of torch for one of `local` processes on this host; None where OMP_NUM_THREADS has told torch already.

    Its share of the host's cores, and no more than the system lets it run on (a batch system's or a container's bounds).
    """
    if environment.get("OMP_NUM_THREADS"):
        return None
    share = (os.cpu_count() or 1) // local
    if hasattr(os, "sched_getaffinity"):  # Linux alone has it
        share = min(share, len(os.sched_getaffinity(0)))
    return max(1, share)


def own_gpu(local_rank: int) -> torch.device:
    """The GPU of this process: the one it sees, where the batch system shows each its own, else that of its local rank."""
    seen = torch.cuda.device_count()
    if seen > 1 and local_rank >= seen:
        raise RunError(f"{local_rank + 1} processes or more were started on this host, which has {seen} GPUs")
    return torch.device("cuda", local_rank if seen > 1 else 0)


def open_mixture(recipe: Recipe) -> Mixture:
    """The training images."""
    return _mixture_of(recipe.data, recipe.seed)


def build_views(recipe: Recipe) -> Views:
    """The views, with the sources that some of their operations take second images from opened as the training data are."""
    arguments = dict(recipe.views.arguments)
    for name, settings in arguments.items():
        if entries := getattr(settings, "data", None):
            arguments[name] = settings.model_copy(update={"data": _mixture_of(entries, recipe.seed)})
    return VIEWS[recipe.views.name](**arguments)


def _mixture_of(entries: list[DataEntry], seed: int) -> Mixture:
    """A generator's own seed is added to the recipe's, so that every part follows from the latter."""
    opened = []
    for entry in entries:
        arguments = dict(entry.arguments)
        if "seed" in arguments:
            arguments["seed"] += seed
        opened.append((open_source(entry.source, "train", **arguments), entry.weight))
    return Mixture(opened, seed)


def build_method(recipe: Recipe) -> Method:
    """Backbone and method as training starts from them: a pure function of the recipe."""
    backbone = initial_backbone(recipe)
    with seeded(recipe.seed, "method"):
        return METHODS[recipe.method.name](backbone, recipe.training.steps, **recipe.method.arguments)


def build_probe(recipe: Recipe, mixture: Mixture, method: Method, device: torch.device) -> OnlineProbe | None:
    """The classifier that learns the labels of the training images on the side, where the recipe wants one."""
    settings = recipe.evaluation.online_probe
    if settings is None:
        return None
    if len(mixture.sources) > 1:
        raise RunError(
            "evaluation.online_probe learns the labels of one source, but data names several: set it to null"
        )
    classes = mixture.sources[0].num_classes
    if classes is None:
        raise RunError(
            f"evaluation.online_probe needs labels, and {recipe.data[0].source} has none: set it to null, or take a source "
            "with classes"
        )
    if classes > MOST_PROBED_CLASSES:
        raise RunError(
            f"evaluation.online_probe takes up to {MOST_PROBED_CLASSES} classes, and {recipe.data[0].source} has {classes}: set "
            "it to null, or name fewer classes"
        )
    return OnlineProbe(method.backbone.width, classes, settings.learning_rate, device)


def loop_config(recipe: Recipe) -> LoopConfig:
    """The loop's numbers."""
    training = recipe.training
    return LoopConfig(
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


def with_precision(recipe: Recipe, device: torch.device | None) -> Recipe:
    """The recipe with `training.precision` auto turned into what the device (None: a GPU) is best at."""
    if recipe.training.precision != "auto":
        return recipe
    return _in_precision(recipe, "bf16" if device is None or computes_in_bf16(device) else "fp32")


def agreed_precision(recipe: Recipe, context: DistributedContext, begun: Recipe | None) -> Recipe:
    """As `with_precision`, the same on every process: what the run was begun with, if it was, else what the first is best at."""
    if recipe.training.precision != "auto":
        return recipe
    best = with_precision(recipe if begun is None else begun, context.device).training.precision
    return _in_precision(recipe, context.broadcast_from_main(lambda: best))


def _in_precision(recipe: Recipe, precision: str) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"precision": precision})})


def check_backbone(recipe: Recipe, device: torch.device, method: Method, views: Views) -> None:
    """Try the backbone on one image of each size; refuse what it cannot take, and bf16 where its gradient is wrong."""
    sizes = [size for _, size in views.shape]
    try:
        unsafe = strided_over_one_pixel(method.backbone, sizes, views.channels)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise RunError(
            f"{recipe.model.backbone} does not take views of {', '.join(map(str, sizes))} px: {error} (vision transformers "
            "take several sizes with model.arguments.dynamic_img_size=true, another one with model.arguments.img_size)"
        ) from error
    if unsafe and recipe.training.precision == "bf16" and device.type == "cpu":
        name, size = unsafe[0]
        raise RunError(
            f"views of {size} px are too small for this backbone in bf16 on a CPU: {name} strides over a single pixel, where "
            "its gradient would be wrong; take larger views, model.stem=cifar, or training.precision=fp32"
        )
