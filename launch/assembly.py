"""Assemble the parts of a training run from a recipe: data, views, method, engine, schedule, checkpoints."""

from dataclasses import dataclass

import torch

from wildfern.launch.builders import (
    build_method,
    build_schedule,
    build_views,
    check_backbone,
    check_batch_norm,
    check_channels,
    check_classes,
    loop_config,
    open_mixture,
    open_second_images,
)
from wildfern.launch.cluster.distributed import DistributedContext
from wildfern.launch.cluster.same_data import check_same_data
from wildfern.launch.compiling import compile_networks
from wildfern.launch.errors import RunError
from wildfern.launch.evaluation_data import check_channels_of, check_labels_of, check_networks_of, evaluation_sources
from wildfern.launch.online_evaluations import build_probe
from wildfern.launch.protocols import check_protocols
from wildfern.launch.run_decoder import check_decoder, checked_backbone
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Recipe
from wildfern.ssl.augmentation import Views
from wildfern.ssl.data import DataError, Mixture, Source
from wildfern.ssl.methods import Method
from wildfern.ssl.tracking.progress import SILENT, Progress
from wildfern.ssl.training import (
    ENGINES,
    OPTIMIZERS,
    BatchReader,
    CheckpointStore,
    Engine,
    EngineParts,
    LoopConfig,
    OnlineEvaluation,
)
from wildfern.ssl.training.input_precision import input_dtype
from wildfern.ssl.training.schedules import Schedule
from wildfern.ssl.training.state_layout import full_shape
from wildfern.ssl.training.state_parts import weights

_WHOLE_BYTES = 8 * 2**30  # state that rank 0 still collects, at ZeRO stages that split it
_STATE_OF_A_WEIGHT = 12  # bytes: float32, with two moments


@dataclass(frozen=True)
class Assembly:
    """The parts of one run on this rank."""

    config: LoopConfig
    mixture: Mixture
    views: Views
    view_dtype: torch.dtype  # of the views in training; those of views.png are float32
    reader: BatchReader
    engine: Engine  # holds the method and its online evaluations
    schedule: Schedule
    checkpoints: CheckpointStore
    evaluation_sources: dict[str, tuple[Source, Source]]  # train and test part by name; empty except on rank 0


def assemble(recipe: Recipe, folder: RunFolder, context: DistributedContext, progress: Progress = SILENT) -> Assembly:
    """The parts that the recipe names; called on every rank, loads no checkpoint."""
    mixture, views, evaluated, second_images = open_data(recipe, context, progress)
    progress.part(f"building {recipe.model.backbone} and its {recipe.method.name} heads")
    views.to(context.device)
    config = loop_config(recipe)
    method = build_method(recipe, replaced=folder.has_checkpoints())
    try:
        method.needs.check_views(views.shape)  # of these arguments of the method
    except ValueError as error:
        raise RunError(f"{recipe.method.name}: {error}") from error
    progress.part("reading labels")
    check_classes(recipe, mixture, method)
    progress.part("comparing the data of the ranks" if context.world_size > 1 else "preparing the views")
    frozen = {f"the frozen {name}": teacher.sha256 for name, teacher in method.frozen_teachers().items()}
    check_same_data(
        recipe, mixture, second_images, {"model.weights": method.backbone.weights_sha256, **frozen}, context
    )
    check_batch_norm(recipe, method)
    reader = BatchReader(
        mixture,
        views,
        seed=recipe.seed,
        batch_size=recipe.training.batch_size,
        accumulation=recipe.training.accumulation,
        channels_last=recipe.training.channels_last,
        masks=method.needs.masks,
        rank=context.rank,
        world_size=context.world_size,
    )
    wanted = recipe.evaluation
    progress.part(f"trying {recipe.model.backbone} on one image of each size")
    check_backbone(recipe, context.device, method, views)
    check_decoder(method, recipe, views.shape[0][1])
    if wanted.on:
        evaluators = check_protocols(wanted.protocols, wanted.few_shot, wanted.seeds)
        check_networks_of(
            evaluators, checked_backbone(method, recipe), max(size for _, size in views.shape), "evaluation.protocols"
        )
    # DeepSpeed broadcasts weights as flat bytes, so there they stay contiguous and only the images are channels_last.
    channels_last = recipe.training.channels_last and recipe.engine.name == "torch"
    layout = {"memory_format": torch.channels_last} if channels_last else {}
    for module in method.networks():
        module.to(context.device, **layout)
    view_dtype = input_dtype(method, recipe.training.precision, views)
    progress.part("preparing the device")
    if recipe.training.compile:
        progress.part("checking torch.compile")
        compile_networks(method, context.device)
    probe = build_probe(recipe, mixture, method, context.device)
    progress.part(f"starting the engine {recipe.engine.name}")
    engine = build_engine(recipe, method, probe, reader.size, context.device)
    numbers = (source.num_items for source in mixture.sources)
    # Of the weights that training started from.
    engine.metadata["weights_sha256"] = method.backbone.weights_sha256 or folder.start_weights().get("sha256")
    engine.metadata["items"] = [None if number is None else int(number) for number in numbers]
    schedule = build_schedule(recipe)
    checkpoints = CheckpointStore(
        folder.path / "checkpoints",
        recipe.training.keep_checkpoints,
        recipe.training.keep_every,
        is_main=context.is_main,
        any_rank=engine.any,
        all_ranks=engine.barrier,
        sharded=in_shards(recipe, method, context.world_size),
        rank=context.rank,
        world_size=context.world_size,
    )
    return Assembly(config, mixture, views, view_dtype, reader, engine, schedule, checkpoints, evaluated)


def in_shards(recipe: Recipe, method: Method, world_size: int) -> bool:
    """Whether each rank writes its own part of a checkpoint."""
    form = recipe.training.checkpoint_form
    if form != "auto":
        return form == "sharded"
    split = recipe.engine.name == "deepspeed" and recipe.engine.arguments["zero_stage"] > 0 and world_size > 1
    return split and _STATE_OF_A_WEIGHT * sum(full_shape(w).numel() for w in weights(method).values()) > _WHOLE_BYTES


def open_data(
    recipe: Recipe, context: DistributedContext, progress: Progress = SILENT
) -> tuple[Mixture, Views, dict[str, tuple[Source, Source]], dict[str, Mixture]]:
    """Training images, views, on rank 0 the datasets to evaluate on, and the second images of views.

    Rank 0 opens first, because it may download. An error of one rank is raised on every rank.
    """
    evaluated: dict[str, tuple[Source, Source]] = {}
    error = None

    def opened() -> tuple[Mixture, dict[str, Mixture], Views]:
        mixture, second_images = open_mixture(recipe), open_second_images(recipe)
        return mixture, second_images, build_views(recipe, second_images)

    if context.is_main:
        try:
            progress.part(f"opening {', '.join(entry.source for entry in recipe.data)}")
            mixture, second_images, views = opened()
            check_channels(recipe, mixture, views)
            wanted = recipe.evaluation
            progress.part("opening the data sets to evaluate on")
            try:
                evaluated = evaluation_sources(wanted.on)
            except DataError as caught:
                raise DataError(f"evaluation.on: {caught}") from caught
            check_channels_of(evaluated, views.input_channels)
            check_labels_of(
                evaluated, check_protocols(wanted.protocols, wanted.few_shot, wanted.seeds) if evaluated else {}
            )
        except (ValueError, OSError) as caught:
            error = caught
    progress.part("waiting for the other ranks to open the data" if context.world_size > 1 else "")
    context.raise_on_all(error)
    if not context.is_main:
        try:
            mixture, second_images, views = opened()
        except (ValueError, OSError) as caught:
            error = caught
    context.raise_on_all(error)
    context.barrier()  # from here on the collective timeout applies
    return mixture, views, evaluated, second_images


def prepare_data(mixture: Mixture, context: DistributedContext, progress: Progress = SILENT) -> None:
    """What reading in random order needs first, such as local copies; called on every rank, without the collective timeout."""
    error = None
    progress.part("preparing the images")
    try:
        for source in mixture.sources:
            source.prepare()
    except (ValueError, OSError) as caught:
        error = caught
    context.raise_on_all(error)


def build_engine(
    recipe: Recipe, method: Method, probe: OnlineEvaluation | None, micro_batch_size: int, device: torch.device
) -> Engine:
    """The engine that the recipe names, around the method."""
    name, arguments = recipe.optimizer.name, recipe.optimizer_arguments

    def optimizer(groups: list[dict]) -> torch.optim.Optimizer:
        return OPTIMIZERS[name](groups, **arguments)

    parts = EngineParts(
        method=method,
        make_optimizer=optimizer,
        optimizer_name=name,
        weight_decay=arguments["weight_decay"],
        device=device,
        precision=recipe.training.precision,
        micro_batch_size=micro_batch_size,
        accumulation=recipe.training.accumulation,
        gradient_clip=recipe.training.gradient_clip,
        skip_nonfinite=recipe.training.skip_nonfinite > 0,
        probe=probe,
    )
    engine: Engine = ENGINES[recipe.engine.name](parts, **recipe.engine.arguments)
    return engine
