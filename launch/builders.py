"""Build each part that a recipe names: data, views, method, the loop's settings."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from wildfern.launch.backbone_arguments import backbone_takes, size_argument
from wildfern.launch.backbones import initial_backbone, seeded
from wildfern.launch.cluster.distributed import DistributedContext
from wildfern.launch.components import different_channels
from wildfern.launch.errors import RunError, place_in_plugin
from wildfern.launch.online_evaluations import online_keys
from wildfern.recipes import Recipe
from wildfern.recipes.schema import DataEntry
from wildfern.registry import GENERATORS
from wildfern.ssl.augmentation import VIEWS, Views
from wildfern.ssl.augmentation.normalization import checked_normalization
from wildfern.ssl.data import Mixture, Source, open_source
from wildfern.ssl.data.clusters import read_clusters
from wildfern.ssl.data.guided_batches import GuidedBatches
from wildfern.ssl.data.imbalance import imbalanced
from wildfern.ssl.methods import METHODS, ComparingMethod, Method
from wildfern.ssl.methods.comparing import compares_whole_batch
from wildfern.ssl.models import Backbone
from wildfern.ssl.training import (
    SCHEDULES,
    LoopConfig,
    check_state,
)
from wildfern.ssl.training.precision import computes_in_bf16, strided_over_one_pixel
from wildfern.ssl.training.schedules import Schedule, held, in_turn


def open_mixture(recipe: Recipe) -> Mixture:
    """The training images."""
    return _mixture_of(recipe.data, recipe.seed, recipe.training.batch_size)


def second_entries(recipe: Recipe) -> dict[str, list[DataEntry]]:
    """The sources of the images that operations of the views mix in or adapt to, by argument of the views.

    Without any of its own, an operation that is for images with masks has the entries of `data` that are not rendered.
    """
    found = {}
    for name, settings in recipe.views.arguments.items():
        entries = getattr(settings, "data", None)
        if entries is None and getattr(settings, "images", None) == "with_masks":
            entries = _photographs(recipe, name)
        if entries:
            found[name] = entries
    return found


def open_second_images(recipe: Recipe) -> dict[str, Mixture]:
    """The images of `second_entries`, opened like the training data."""
    opened = {name: _mixture_of(entries, recipe.seed) for name, entries in second_entries(recipe).items()}
    for mixture in opened.values():
        mixture.skip_labels()
    return opened


def _photographs(recipe: Recipe, name: str) -> list[DataEntry]:
    """The entries of `data` that are not rendered. Raises RunError if there are none."""
    found = [entry for entry in recipe.data if entry.scheme not in GENERATORS]
    if not found:
        raise RunError(
            f"views.{name} adapts rendered images to others, but all sources of data are generators: name a source in "
            f"views.{name}.data, or add one to data"
        )
    return found


def build_views(recipe: Recipe, second_images: Mapping[str, Mixture] | None = None) -> Views:
    """The views, with the second images of `open_second_images`, which are opened if they are not given."""
    second_images = open_second_images(recipe) if second_images is None else second_images
    arguments = dict(recipe.views.arguments)
    for name, mixture in second_images.items():
        arguments[name] = arguments[name].model_copy(update={"data": mixture})
    return VIEWS[recipe.views.name](**arguments)


def _mixture_of(entries: list[DataEntry], seed: int, batch_size: int | None = None) -> Mixture:
    """The images of a run with this seed. `batch_size` is for guided batches."""
    opened: list[tuple[Source, float]] = []
    guide = None
    for entry in entries:
        source = open_source(entry.source, "train", **seeded_arguments(entry, seed))
        if entry.imbalance is not None:
            source = imbalanced(source, entry.source, **dict(entry.imbalance))
        if entry.guide is not None and batch_size is not None:
            guide = GuidedBatches(read_clusters(entry.guide, source, entry.source), batch_size, seed)
        opened.append((source, entry.weight))
    return Mixture(opened, seed, guide, [entry.buffer for entry in entries])


def seeded_arguments(entry: DataEntry, seed: int) -> dict[str, Any]:
    """The arguments of a source, with the recipe's seed added to its own: all data follow from the recipe's."""
    arguments = dict(entry.arguments)
    if "seed" in arguments:
        arguments["seed"] += seed
    return arguments


def check_channels(recipe: Recipe, mixture: Mixture, views: Views) -> None:
    """Raise RunError if the training images do not have as many channels as the views take."""
    if mixture.channels != views.input_channels:
        what = " and ".join(entry.source for entry in recipe.data)
        raise RunError(different_channels(what, mixture.channels, views.input_channels))


def build_method(recipe: Recipe, replaced: bool = False) -> Method:
    """Backbone and method at initialization: a pure function of the recipe. `replaced` as in `initial_backbone`.

    Raises RunError for a method that lacks a part of the interface.
    """
    backbone, name = initial_backbone(recipe, replaced), recipe.method.name
    try:
        with seeded(recipe.seed, "method"):
            method = METHODS[name](backbone, method_steps(recipe), **recipe.method.arguments)
    except AttributeError as error:
        if "before Module.__init__() call" not in str(error):
            raise
        raise RunError(f"method {name}: __init__() must call super().__init__() before it sets sub-modules") from error
    if type(method).forward is Method.forward:
        raise RunError(f"method {name} has no forward(batch) that returns an Output")
    if compares_whole_batch(method):
        for function, result in (("embed(batch)", "Embedded"), ("compare(embeddings, step)", "Output")):
            own = function.partition("(")[0]
            if getattr(type(method), own) is getattr(ComparingMethod, own):
                raise RunError(f"method {name} has no {function} that returns an {result}")
    if not isinstance(getattr(method, "backbone", None), Backbone):
        raise RunError(f"method {name}: __init__() must set self.backbone to the backbone that it gets")
    if not isinstance(method.eval_backbone(), Backbone):
        raise RunError(f"method {name}: eval_backbone() must return a backbone, such as self.backbone")
    check_state(method)
    if recipe.model.activation_checkpointing:  # of the student alone: teachers keep no activations
        method.backbone.checkpoint_activations()
    method.freeze = recipe.model.freeze
    normalization = checked_normalization(*(recipe.views.arguments.get(key) for key in ("mean", "std")))
    for teacher in method.frozen_teachers().values():
        teacher.views_are_normalized_with(*normalization)
    return method


def method_steps(recipe: Recipe) -> int:
    """Steps that the method's own schedules span, such as a teacher's momentum: those of a schedule that is held, else all."""
    choice = recipe.schedule
    return choice.length if choice.length and choice.afterwards == "hold" else recipe.training.steps


def build_schedule(recipe: Recipe) -> Schedule:
    """Learning rate and weight decay over the whole run."""
    choice, total = recipe.schedule, recipe.training.steps
    length = choice.length or total
    first = SCHEDULES[choice.name](length, **choice.arguments)
    if length >= total:
        return first
    if choice.afterwards == "hold":
        return held(first, length)
    return in_turn(first, length, SCHEDULES[choice.name](total - length, **choice.arguments))


def check_batch_norm(recipe: Recipe, method: Method) -> None:
    """Raise RunError for batch normalization over a single image."""
    batch_size, accumulation = recipe.training.batch_size, recipe.training.accumulation
    if batch_size // accumulation > 1:
        return
    for name, module in [(n, m) for part in (method, *method.teachers().values()) for n, m in part.named_modules()]:
        if isinstance(module, _BatchNorm) and module.training:
            key, what = ("batch_size", "a batch") if accumulation == 1 else ("accumulation", "each part of the batch")
            raise RunError(
                f"training.{key} {getattr(recipe.training, key)} leaves one image in {what}, but {name} of "
                f"{recipe.method.name} with {recipe.model.backbone} normalizes over images (it is a {type(module).__name__}): "
                "at least two are needed"
            )


def separate_parts(recipe: Recipe, method: Method) -> list[str]:
    """A message if the method compares images, but only those of the same part of the batch."""
    training = recipe.training
    if training.accumulation == 1 or compares_whole_batch(method) or method.needs.images == 1:
        return []
    return [
        f"training.accumulation: {recipe.method.name} compares the {training.batch_size // training.accumulation} images of each "
        f"part, not all {training.batch_size} of a batch, because it defines forward() rather than embed() and compare()"
    ]


def frozen_weights(method: Method) -> list[str]:
    """A message for each frozen teacher: the weights that it has."""
    found = []
    for name, teacher in method.frozen_teachers().items():
        weights = teacher.backbone.weights
        said = "random weights" if weights is None else weights.message.removeprefix("model.weights: ")
        found.append(f"frozen {name} {teacher.backbone.name}: {said}")
    return found


def scaled_learning_rate(recipe: Recipe) -> list[str]:
    """A message if the learning rate follows from the batch size."""
    optimizer, batch_size = recipe.optimizer, recipe.training.batch_size
    if optimizer.base_learning_rate is None:
        return []
    factor = f"{batch_size}/256" if optimizer.scaling == "linear" else f"√({batch_size}/256)"
    rate = recipe.optimizer_arguments["learning_rate"]
    return [f"learning rate {rate:g}: optimizer.base_learning_rate {optimizer.base_learning_rate:g} × {factor}"]


def untrained(recipe: Recipe) -> list[str]:
    """A message if the backbone's weights stay for the whole run."""
    frozen, steps = recipe.model.freeze, recipe.training.steps
    if frozen < steps:
        return []
    return [
        f"model.freeze is {frozen} and training.steps {steps}: only the heads are trained, the backbone's weights do not change"
    ]


def check_classes(recipe: Recipe, mixture: Mixture, method: Method) -> None:
    """Read labels if the method or an online evaluation needs them, and only then.

    Raises DataError for labels that cannot be used, and RunError if a method's argument `classes` is less than a source has.
    """
    _check_items(recipe, mixture, method)
    _check_parameters(recipe, mixture, method)
    _check_masks(recipe, mixture, method)
    if method.needs.labels is None:
        if not online_keys(recipe):
            mixture.skip_labels()
        return
    classes = recipe.method.arguments.get("classes")
    for entry, source in zip(recipe.data, mixture.sources, strict=True):
        found = source.num_classes
        if isinstance(classes, int) and found is not None and found > classes:
            raise RunError(f"method.classes is {classes}, but {entry.source} has {found} classes")


def _check_items(recipe: Recipe, mixture: Mixture, method: Method) -> None:
    """Raise RunError if a method that classifies images by their number has too few classes, or there are no numbers."""
    if not method.needs.items:
        return
    name, instances = recipe.method.name, recipe.method.arguments.get("instances")
    for entry, source in zip(recipe.data, mixture.sources, strict=True):
        if source.num_items is None and len(mixture.sources) == 1:
            raise RunError(
                f"{name} needs images that come again, but {entry.source} is endless: "
                f"data={{source: finite, of: {{source: {entry.source}, …}}, items: 10000}} repeats its first 10 000"
            )
    if isinstance(instances, int) and mixture.num_images > instances:
        raise RunError(f"method.instances is {instances}, but the data has {mixture.num_images} images")
    if mixture.num_images == 0:
        raise RunError(f"{name} needs images that come again, but all sources of data are endless")


def _check_masks(recipe: Recipe, mixture: Mixture, method: Method) -> None:
    """Raise RunError if a method needs images with masks, or without, and there are none."""
    if not method.needs.masks:
        return
    with_masks, name = mixture.with_masks, recipe.method.name
    sources = ", ".join(entry.source for entry in recipe.data)
    if not any(with_masks):
        raise RunError(
            f"{name} needs masks, but no source of `data` has any ({sources}); masks:PATH and the generators lsystem, contours "
            "and dead_leaves have"
        )
    if method.needs.unmasked and all(with_masks):
        raise RunError(
            f"{name} aligns images that have masks with images that have none, but all of {sources} have: add a source without, "
            "for example folder:PATH of your images, or set method.adversarial=0 method.contrast=0"
        )


def _check_parameters(recipe: Recipe, mixture: Mixture, method: Method) -> None:
    """Read parameters if the method needs them. Raises RunError if there are none, or another number than the method takes."""
    if not method.needs.parameters:
        return
    names, taken = mixture.parameter_names, recipe.method.arguments.get("parameters")
    if not names:
        sources = ", ".join(entry.source for entry in recipe.data)
        raise RunError(
            f"{recipe.method.name} needs images with the parameters that they were rendered with, but {sources} has none; the "
            "generators ifs and spectrum have"
        )
    if isinstance(taken, int) and taken != len(names):
        raise RunError(f"method.parameters is {taken}, but the data has {len(names)}: {', '.join(names)}")
    mixture.read_parameters()


def loop_config(recipe: Recipe) -> LoopConfig:
    """The settings of the training loop."""
    training = recipe.training
    return LoopConfig(
        seed=recipe.seed,
        total_steps=training.steps,
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        learning_rate=recipe.optimizer_arguments["learning_rate"],
        weight_decay=recipe.optimizer_arguments["weight_decay"],
        loader_threads=training.loader_threads,
        channels_last=training.channels_last,
        checkpoint_every=training.checkpoint_every,
        checkpoint_minutes=training.checkpoint_minutes,
        evaluate_every=recipe.evaluation.every,
        skip_nonfinite=training.skip_nonfinite,
        diagnostics=recipe.evaluation.diagnostics,
    )


def with_precision(recipe: Recipe, device: torch.device | None) -> Recipe:
    """The recipe with `training.precision` auto replaced by the best one for the device (None: a GPU)."""
    if recipe.training.precision != "auto":
        return recipe
    return _in_precision(recipe, "bf16" if device is None or computes_in_bf16(device) else "fp32")


def agreed_precision(recipe: Recipe, context: DistributedContext, resumed: Recipe | None) -> Recipe:
    """As `with_precision`, equal on every rank: that of the run being resumed (`resumed`), else the best one for rank 0."""
    if recipe.training.precision != "auto":
        return recipe
    best = with_precision(recipe if resumed is None else resumed, context.device).training.precision
    return _in_precision(recipe, context.broadcast_from_main(lambda: best))


def _in_precision(recipe: Recipe, precision: str) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"precision": precision})})


def check_backbone(recipe: Recipe, device: torch.device, method: Method, views: Views) -> None:
    """Run backbone and frozen teachers on one image of each size; refuse sizes they cannot take, and bf16 where the backbone's
    gradient would be wrong.
    """
    sizes = [size for _, size in views.shape]
    for name, teacher in method.frozen_teachers().items():
        _check_teacher(name, teacher.backbone, sizes, views.channels)
    try:
        unsafe = strided_over_one_pixel(method.backbone, sizes, views.channels)
    except Exception as error:  # networks raise any error for images that they cannot take
        if place_in_plugin(error):
            raise
        reason = _first_line(error)
        advice = f"set views.size to another size, for example the {method.backbone.size} px that it is made for"
        if len(set(sizes)) > 1:
            advice = f"choose larger views, or for a network that takes one size only views.local_size={max(sizes)}"
        raise RunError(
            f"{recipe.model.backbone} does not take views of {', '.join(map(str, sorted(set(sizes))))} px: {reason}; "
            f"{advice}{_other_sizes(recipe, several=len(set(sizes)) > 1)}"
        ) from error
    if unsafe and recipe.training.precision == "bf16" and device.type == "cpu":
        name, size = unsafe[0]
        stem = "model.stem=cifar, " if backbone_takes(recipe.model.backbone, "stem") else ""
        raise RunError(
            f"views of {size} px are too small for this backbone in bf16 on a CPU: {name} strides over a single pixel, where "
            f"its gradient would be wrong; use larger views, {stem}or training.precision=fp32"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_teacher(name: str, backbone: Backbone, sizes: list[int], channels: int) -> None:
    try:
        strided_over_one_pixel(backbone, sizes, channels)
    except Exception as error:
        if place_in_plugin(error):
            raise
        key = size_argument(backbone.name)
        other = f", or make it for another size with method.{name}_arguments.{key}" if key else ""
        raise RunError(
            f"the {name} {backbone.name} does not take views of {', '.join(map(str, sorted(set(sizes))))} px: "
            f"{_first_line(error)}; set views.size to the {backbone.size} px that it is made for{other}"
        ) from error


def _other_sizes(recipe: Recipe, several: bool) -> str:
    """How the backbone can be made for other sizes, as the end of an error message."""
    key, given = size_argument(recipe.model.backbone), recipe.model.arguments
    ways = [f"model.arguments.{key} makes it for another size"] if key and key not in given and not several else []
    if backbone_takes(recipe.model.backbone, "dynamic_img_size") and "dynamic_img_size" not in given:
        ways.append("model.arguments.dynamic_img_size=true for several sizes")
    return f" ({', '.join(ways)})" if ways else ""


def unseen_pixels(method: Method, views: Views) -> list[str]:
    """A message if views are no multiple of the patches of a vision transformer, which then does not see their last pixels."""
    patch = method.backbone.patch_size
    sizes = sorted({size for _, size in views.shape if patch and size % patch})
    if not sizes or getattr(getattr(method.backbone.network, "patch_embed", None), "dynamic_img_pad", False):
        return []
    what = ", ".join(f"{size % patch} of {size} px" for size in sizes)
    return [
        f"{method.backbone.name} has patches of {patch} px: it does not see the last {what} on the right and below; views of "
        f"{' or '.join(str(size - size % patch) for size in sizes)} px have whole patches"
    ]
