"""Where a recipe departs from the papers of its method and optimizer, in words for the start of a run.

What is usual stands beside each method and optimizer: `Method.usual`, and `usual` of an optimizer.
"""

from collections.abc import Iterator

from wildfern.recipes import Recipe
from wildfern.registry import METHODS, OPTIMIZERS
from wildfern.ssl.methods.usual import Usual, UsualRates

TRANSFORMERS = ("vit_", "deit", "beit", "cait", "xcit", "swin", "eva")  # starts of timm's names


def departures(recipe: Recipe) -> list[str]:
    """A line for each departure; none for the bundled recipes as they are."""
    found: list[str] = []
    usual, rates = getattr(METHODS[recipe.method.name], "usual", None), None
    if isinstance(usual, Usual):
        found += [f"{recipe.method.name} {what} ({usual.source})" for what in _of_method(recipe, usual)]
    rates = getattr(OPTIMIZERS[recipe.optimizer.name], "usual", None)
    if isinstance(rates, UsualRates):
        found += [f"{recipe.optimizer.name} {what} ({rates.source})" for what in _of_optimizer(recipe, rates)]
    return [*found, *_short_queue(recipe)]


def _short_queue(recipe: Recipe) -> Iterator[str]:
    for key in ("queue", "queue_length"):
        length, batch_size = recipe.method.arguments.get(key), recipe.training.batch_size
        if isinstance(length, int) and 0 < length < batch_size:
            yield f"{recipe.method.name} with method.{key} {length}: a batch has more images, {batch_size}, than are remembered"


def _of_method(recipe: Recipe, usual: Usual) -> Iterator[str]:
    name, given, batch_size = recipe.optimizer.name, recipe.optimizer_arguments, recipe.training.batch_size
    transformer = recipe.model.backbone.startswith(TRANSFORMERS)
    if usual.optimizers and name not in usual.optimizers and (transformer or not usual.only_transformers):
        which = " of vision transformers" if usual.only_transformers else ""
        yield f"with optimizer.name {name}: the usual one{which} is {' or '.join(usual.optimizers)}"
    if usual.warmup and recipe.schedule.arguments.get("warmup") == 0:
        yield "with schedule.warmup 0: usually the learning rate is warmed up"
    if usual.weight_decay and given["weight_decay"] == 0:
        yield "with optimizer.weight_decay 0: it is usually above 0"
    betas = given.get("betas")
    if usual.beta2 is not None and betas is not None and betas[1] != usual.beta2:
        yield f"with optimizer.betas {list(betas)}: the second one is usually {usual.beta2}"
    if batch_size < usual.batch_size:
        yield f"with training.batch_size {batch_size}: it compares the images of a batch, and these are few"


def _of_optimizer(recipe: Recipe, usual: UsualRates) -> Iterator[str]:
    rate, batch_size = recipe.optimizer_arguments["learning_rate"], recipe.training.batch_size
    if rate > usual.most:
        yield f"with learning rate {rate:g}: usual ones are at most {usual.most:g}"
    if rate < usual.least:
        yield f"with learning rate {rate:g}: usual ones are at least {usual.least:g}"
    if batch_size < usual.batch_size:
        yield f"with training.batch_size {batch_size}: it is made for batches of {usual.batch_size} images and more"
