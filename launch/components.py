"""The registries of recipes, and checks of a recipe as a whole."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wildfern.launch.backbone_arguments import backbone_takes, with_image_size
from wildfern.recipes import Components, Recipe, load_recipe
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
from wildfern.ssl.training import is_layer_wise


class _CheapToBuild:
    """Generators and views: their arguments are checked by building one."""

    def __contains__(self, name: object) -> bool:
        return name in GENERATORS or name in VIEWS


def components() -> Components:
    """All components of recipes."""
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
    )


def say(message: str) -> None:
    """Print a message on standard error, apart from the output of commands."""
    print(message, file=sys.stderr)


def read_recipe(
    name_or_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    plugins: Sequence[str | Path] = (),
    data_here: bool = True,
    announce: Callable[[str], None] = say,
) -> Recipe:
    """The recipe, checked on its own and against the files on this machine. Raises RecipeErrors with all errors.

    Runs the recipe's plugins and `plugins`. `data_here=False`: the images will not be read, they may be on another machine.
    `announce` gets a message for each automatic change.
    """
    checks = CHECKS if data_here else [check for check in CHECKS if check is not _places_exist]
    recipe = load_recipe(name_or_path, overrides, components(), extra_checks=checks, plugins=plugins, announce=announce)
    if "." in recipe.model.backbone and recipe.model.weights is None:
        announce(
            f"model.backbone is {recipe.model.backbone}, but its weights are loaded only with model.weights=timm: training "
            "starts from random weights"
        )
    return with_image_size(recipe, announce)


Problems = Iterator[tuple[str, str]]


def _backbone_exists(recipe: Recipe) -> Problems:
    from wildfern.ssl.models.networks import unknown_network

    if problem := unknown_network(recipe.model.backbone):
        yield "model.backbone", problem


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


def _views_fit_the_method(recipe: Recipe) -> Problems:
    needs = getattr(METHODS[recipe.method.name], "needs", None)
    if needs is None:
        yield "method.name", f"{recipe.method.name} is not a subclass of wildfern.ssl.methods.Method"
        return
    try:
        needs.check_views(VIEWS[recipe.views.name](**recipe.views.arguments).shape)
    except ValueError as error:
        yield "views.name", str(error)


def _backbone_takes_the_channels(recipe: Recipe) -> Problems:
    made = VIEWS[recipe.views.name](**recipe.views.arguments).channels
    taken = recipe.model.arguments.get("in_chans", 3)
    if recipe.model.backbone == "small_alexnet" and made != 3:
        yield (
            "model.backbone",
            f"small_alexnet takes three channels; views.local_intensity_order makes {made} of a view",
        )
    elif made != taken:
        why = "views.local_intensity_order makes so many of a view" if made == 4 else "the channels of a view"
        yield "model.arguments.in_chans", f"must be {made}, {why}; got {taken}"


def _protocols_can_be_built(recipe: Recipe) -> Problems:
    for number, protocol in enumerate(recipe.evaluation.protocols):
        try:
            EVALUATORS[protocol.name](**protocol.arguments)
        except ValueError as error:
            yield f"evaluation.protocols.{number}", str(error)


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


def _optimizer_takes_the_schedule(recipe: Recipe) -> Problems:
    missing = {"learning_rate", "weight_decay"} - set(recipe.optimizer.arguments)
    if missing:
        yield (
            "optimizer.name",
            f"{recipe.optimizer.name} has no {' and no '.join(sorted(missing))}: an optimizer takes both as keyword-only "
            "arguments, and the schedule changes them",
        )


def _optimizer_fits_the_engine(recipe: Recipe) -> Problems:
    stage = recipe.engine.arguments.get("zero_stage", 0)
    if is_layer_wise(recipe.optimizer.name) and stage > 0:
        yield (
            "engine.zero_stage",
            f"must be 0 for {recipe.optimizer.name}: it computes norms per layer, and ZeRO stage {stage} "
            "flattens the layers",
        )


def _places_exist(recipe: Recipe) -> Problems:
    named = [(f"data.{i}.source", entry.source) for i, entry in enumerate(recipe.data)]
    named += [(f"evaluation.on.{i}.source", entry.source) for i, entry in enumerate(recipe.evaluation.on)]
    for argument, settings in recipe.views.arguments.items():
        entries = enumerate(getattr(settings, "data", ()))
        named += [(f"views.{argument}.data.{i}.source", entry.source) for i, entry in entries]
    for key, source in named:
        scheme, _, place = source.partition(":")
        parameter = location_parameter(SOURCES[scheme])
        if parameter is not None and parameter.name == "path" and place and not Path(place).expanduser().exists():
            yield key, f"there is no {place} (from the working folder)"


CHECKS: list[Callable[[Recipe], Problems]] = [
    _backbone_exists,
    _arguments_are_of_the_network,
    _views_fit_the_method,
    _backbone_takes_the_channels,
    _something_to_evaluate,
    _protocols_can_be_built,
    _optimizer_takes_the_schedule,
    _optimizer_fits_the_engine,
    _places_exist,
]
