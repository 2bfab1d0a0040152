"""The registries of recipes, and checks of a recipe as a whole."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from wildfern.launch.backbone_arguments import backbone_takes, with_image_size
from wildfern.launch.output_paths import is_recipe_of_run
from wildfern.printable import printable
from wildfern.recipes import Components, Recipe, load_recipe
from wildfern.recipes.checking import needs
from wildfern.registry import (
    ENGINES,
    EVALUATORS,
    GENERATORS,
    METHODS,
    OPTIMIZERS,
    SCHEDULES,
    SOURCES,
    VIEWS,
    location_parameter,
)
from wildfern.ssl.data import DataError
from wildfern.ssl.data.paths import expanded
from wildfern.ssl.data.remote import check_address, is_remote
from wildfern.ssl.training import is_layer_wise


class _CheapToBuild:
    """Generators and views: their arguments are checked by building one."""

    def __contains__(self, name: object) -> bool:
        return name in GENERATORS or name in VIEWS


def components(data_here: bool = False) -> Components:
    """All components of recipes; `data_here` also checks that folders and files of images exist."""
    return Components(
        sources=SOURCES,
        views=VIEWS,
        methods=METHODS,
        optimizers=OPTIMIZERS,
        schedules=SCHEDULES,
        engines=ENGINES,
        evaluators=EVALUATORS,
        constructible=_CheapToBuild(),
        backbone_takes=backbone_takes,
        backbone_problem=unknown_backbone,
        **({"source_problem": missing_place, "guide_problem": missing_guide} if data_here else {}),
    )


def unknown_backbone(name: str) -> str | None:
    """Why there is no backbone of this name; None if there is."""
    from wildfern.ssl.models.networks import unknown_network

    return unknown_network(name)


def missing_place(source: str) -> str | None:
    """Why the path of a source such as folder:PATH does not exist; None if it does, and for sources without a path."""
    scheme, _, place = source.partition(":")
    parameter = location_parameter(SOURCES[scheme])
    if is_remote(place):
        try:
            check_address(place)
        except DataError as error:
            return str(error)
        if scheme == "parquet":
            return None
    if parameter is None or parameter.name != "path" or not place:
        return None
    try:
        path = expanded(place)
    except DataError as error:
        return str(error)
    if os.path.lexists(path):
        return None if path.exists() else f"{place} is a link to a file or folder that does not exist"
    cut = [beside.name for beside in _beside(path) if beside.name.startswith(f"{path.name} #")]
    hint = (
        f"; there is {cut[0]!r}: '#' after a space starts a comment in YAML, so put the source in quotes" if cut else ""
    )
    return f"there is no {place} (from the working folder){hint}"


def missing_guide(file: str) -> str | None:
    """Why there is no file of clusters; None if there is one."""
    try:
        path = expanded(file)
    except DataError as error:
        return str(error)
    return None if path.exists() else f"there is no file {file} (wildfern cluster writes one)"


def _beside(path: Path) -> list[Path]:
    try:
        return sorted(path.parent.iterdir())
    except OSError:
        return []


def say(message: str) -> None:
    """Print a message on standard error, apart from the output of commands."""
    with suppress(OSError):
        print(printable(message), file=sys.stderr)


def read_recipe(
    name_or_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    plugins: Sequence[str | Path] = (),
    data_here: bool = True,
    announce: Callable[[str], None] = say,
) -> Recipe:
    """The recipe, checked on its own and against the files on this machine. Raises RecipeErrors with all errors.

    Runs `plugins`, and the recipe's own unless it is the recipe of a run folder, which may be a stranger's. `data_here=False`:
    the images will not be read, they may be on another machine. `announce` gets a message for each automatic change.
    """
    known = components(data_here)
    recipe = load_recipe(
        name_or_path,
        overrides,
        known,
        extra_checks=CHECKS,
        plugins=plugins,
        run_own_plugins=not is_recipe_of_run(Path(name_or_path)),
        announce=announce,
    )
    if "." in recipe.model.backbone and recipe.model.weights is None:
        announce(
            f"model.backbone is {recipe.model.backbone}, but its weights are loaded only with model.weights=timm: training "
            "starts from random weights"
        )
    return with_image_size(recipe, announce)


Problems = Iterator[tuple[str, str]]


@needs("model")
def _arguments_are_of_the_network(recipe: Recipe) -> Problems:
    given = recipe.model.arguments
    from wildfern.ssl.models.networks import OF_WEIGHTS

    for key in sorted(given.keys() & set(OF_WEIGHTS)):
        yield (
            f"model.arguments.{key}",
            "set model.weights: timm (or timm:TAG, or a path) to start from pretrained weights",
        )
    for key in sorted(given.keys() & {"self", "name", "weights", "weights_key", "stem", "num_classes"}):
        instead = {
            "name": "model.backbone",
            "weights": "model.weights",
            "weights_key": "model.weights_key",
            "stem": "model.stem",
        }.get(key)
        reason = f"set {instead} instead" if instead else "is not an argument of a backbone, which has no classifier"
        yield f"model.arguments.{key}", reason


@needs("views", "method")
def _views_fit_the_method(recipe: Recipe) -> Problems:
    needs = getattr(METHODS[recipe.method.name], "needs", None)
    if needs is None:
        yield "method.name", f"{recipe.method.name} is not a subclass of wildfern.ssl.methods.Method"
        return
    try:
        needs.check_views(VIEWS[recipe.views.name](**recipe.views.arguments).shape)
    except ValueError as error:
        yield "views.name", str(error)


@needs("method", "training")
def _parts_fit_the_method(recipe: Recipe) -> Problems:
    needs, training = getattr(METHODS[recipe.method.name], "needs", None), recipe.training
    if needs is None:
        return
    try:
        needs.check_images(training.batch_size, training.accumulation)
    except ValueError as error:
        yield "training.batch_size" if training.batch_size < needs.images else "training.accumulation", str(error)


@needs("data", "views")
def _one_source_has_a_guide(recipe: Recipe) -> Problems:
    for number, entry in enumerate(recipe.data):
        if entry.guide is not None and len(recipe.data) > 1:
            yield f"data.{number}.guide", "fills whole batches from one source, but data has several"
    for argument, settings in recipe.views.arguments.items():
        for number, entry in enumerate(getattr(settings, "data", None) or []):
            if entry.guide is not None:
                yield f"views.{argument}.data.{number}.guide", "is for training images, not for second images of views"


@needs("data", "views", "model")
def _backbone_takes_the_channels(recipe: Recipe) -> Problems:
    views = VIEWS[recipe.views.name](**recipe.views.arguments)
    made, taken = views.channels, recipe.model.arguments.get("in_chans", 3)
    for number, entry in enumerate(recipe.data):
        bands = len(entry.arguments.get("bands") or ())
        if bands and bands != views.input_channels:
            and_model = "" if taken == bands else f", and model.arguments.in_chans to {bands}"
            reason = different_channels(f"data.{number}.bands", bands, views.input_channels)
            yield ("views.mean" if "mean" in recipe.views.arguments else "views.name"), reason + and_model
            return
    if recipe.model.backbone == "small_alexnet" and made != 3:
        yield (
            "model.backbone",
            f"small_alexnet takes three channels, and views have {made}",
        )
    elif made != taken:
        why = "the number of channels that views.local_intensity_order makes" if made == 4 else "the channels of a view"
        yield "model.arguments.in_chans", f"must be {made}, {why}; got {taken!r}"


def different_channels(what: str, given: int, taken: int) -> str:
    """The message for images whose number of channels is not that of the views."""
    if given == 3 and taken != 3:
        instead = "leave out views.mean and views.std, or choose as many bands, for example bands: [1]"
        return f"{what} gives images of 3 channels, but views.mean has {taken}: {instead}"
    return (
        f"{what} gives images of {given} channels, but the views take {taken}: set views.mean and views.std to {given} numbers "
        "each (wildfern stats prints those of a source)"
    )


@needs("evaluation")
def _protocols_can_be_built(recipe: Recipe) -> Problems:
    for number, protocol in enumerate(recipe.evaluation.protocols):
        try:
            EVALUATORS[protocol.name](**protocol.arguments)
        except ValueError as error:
            yield f"evaluation.protocols.{number}", str(error)


@needs("evaluation")
def _something_to_evaluate(recipe: Recipe) -> Problems:
    evaluation = recipe.evaluation
    if evaluation.on and not evaluation.protocols and not evaluation.few_shot:
        yield (
            "evaluation.protocols",
            f"name at least one of {', '.join(sorted(EVALUATORS))} (or few_shot), or leave evaluation.on empty",
        )
    for number, entry in enumerate(evaluation.on):
        if entry.source in GENERATORS:
            yield (
                f"evaluation.on.{number}.source",
                f"{entry.source} is endless and cannot be evaluated on; name a data set with labels",
            )


@needs("optimizer")
def _optimizer_takes_the_schedule(recipe: Recipe) -> Problems:
    missing = {"learning_rate", "weight_decay"} - set(recipe.optimizer.arguments)
    if recipe.optimizer.base_learning_rate is not None:
        missing -= {"learning_rate"}
    if missing:
        yield (
            "optimizer.name",
            f"{recipe.optimizer.name} has no {' and no '.join(sorted(missing))}: an optimizer takes both as keyword-only "
            "arguments, and the schedule changes them",
        )


@needs("optimizer", "engine")
def _optimizer_fits_the_engine(recipe: Recipe) -> Problems:
    stage = recipe.engine.arguments.get("zero_stage", 0)
    if is_layer_wise(recipe.optimizer.name) and stage > 0:
        yield (
            "engine.zero_stage",
            f"must be 0 for {recipe.optimizer.name}: it computes norms per layer, and ZeRO stage {stage} "
            "flattens the layers",
        )


CHECKS: list[Callable[[Recipe], Problems]] = [
    _arguments_are_of_the_network,
    _views_fit_the_method,
    _parts_fit_the_method,
    _one_source_has_a_guide,
    _backbone_takes_the_channels,
    _something_to_evaluate,
    _protocols_can_be_built,
    _optimizer_takes_the_schedule,
    _optimizer_fits_the_engine,
]
