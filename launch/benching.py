"""Build the parts of a recipe that `wildfern bench pipeline` measures."""

from functools import partial

from wildfern.benchmarks import Benchmark
from wildfern.launch.backbones import initial_backbone
from wildfern.launch.builders import (
    build_method,
    build_views,
    check_backbone,
    loop_config,
    open_mixture,
    with_precision,
)
from wildfern.launch.compiling import check_compiler, compile_networks
from wildfern.launch.device import choose_device
from wildfern.recipes import Recipe
from wildfern.ssl.training import OPTIMIZERS


def bench_pipeline(recipe: Recipe, name: str, seconds: float, compiled: bool = False) -> Benchmark:
    """Time the recipe's training in this process, on its device, each measurement for about `seconds`.

    `name` is the recipe's name in the result. Raises RunError or DataError if the recipe cannot train here.
    """
    from wildfern.benchmarks.pipeline import LightlySettings, Parts, run

    device = choose_device(recipe.training.device)
    recipe = with_precision(recipe, device)
    if compiled:
        check_compiler(device)
    views, method, optimizer = build_views(recipe), recipe.method.arguments, recipe.optimizer_arguments
    check_backbone(recipe, device, build_method(recipe), views)
    plain = recipe.method.name == "simclr" and recipe.views.name == "simclr" and views.shape[0][0] == 2
    parts = Parts(
        recipe=name,
        backbone=recipe.model.backbone,
        device=device,
        precision=recipe.training.precision,
        config=loop_config(recipe),
        mixture=open_mixture(recipe),
        views=views,
        build_backbone=partial(initial_backbone, recipe),
        build_method=partial(build_method, recipe),
        make_optimizer=partial(OPTIMIZERS[recipe.optimizer.name], **optimizer),
        compile=partial(compile_networks, device=device),
        lightly=LightlySettings(
            recipe.views.arguments, method["projection_hidden"], method["projection_size"], method["temperature"]
        )
        if plain
        else None,
    )
    return run(parts, seconds, compiled)
