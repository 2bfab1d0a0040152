"""Backbones by name, and those of a recipe: at the start of training, and with other weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from wildfern.generators.counter_rng import key
from wildfern.recipes import Recipe
from wildfern.ssl.models import Backbone

RANDOM = ("random", "none")  # in place of weights: none


def chosen_weights(weights: str | Path | None) -> str | Path | None:
    """None for `random` and `none`, unless there is a file of this name."""
    return None if weights is None or (str(weights) in RANDOM and not Path(weights).exists()) else weights


def named_backbone(name: str, weights: str | Path | None, **arguments: Any) -> Backbone:
    """Any network with weights, or initialized from seed 0, in eval mode."""
    with seeded(0, "backbone"):
        return Backbone(name, weights, **arguments).eval()


def initial_backbone(recipe: Recipe, replaced: bool = False) -> Backbone:
    """The backbone at the start of training: a pure function of the recipe and of the weights that it names.

    `replaced`: a checkpoint will replace the weights, so that their file may be gone.
    """
    model = recipe.model
    try:
        return recipe_backbone(recipe, model.weights, model.weights_key)
    except ValueError:
        if not replaced or model.weights is None:
            raise
        return recipe_backbone(recipe)


def recipe_backbone(recipe: Recipe, weights: str | None = None, key: str | None = None) -> Backbone:
    """The recipe's network with `weights`, or initialized from its seed."""
    model = recipe.model
    stem = "cifar" if model.stem == "small" else model.stem  # small: its name in recipes of earlier versions
    with seeded(recipe.seed, "backbone"):
        return Backbone(model.backbone, weights, stem, weights_key=key, **model.arguments)


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch's generator from (seed, purpose) inside the block; restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(purpose, seed))
        yield
