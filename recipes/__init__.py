"""Recipes: YAML files that name components and their arguments, checked against the components' own signatures.

    recipe = load_recipe("my.yaml", ["training.steps=100"], components)
    recipe.method.name, recipe.method.arguments, recipe.training.batch_size

Knows neither torch nor the rest of wildfern: the registries come from the caller, as `Components`.
"""

from wildfern.recipes.checking import ExtraCheck
from wildfern.recipes.components import Components
from wildfern.recipes.editor_schema import json_schema
from wildfern.recipes.errors import Problem, RecipeErrors, nearest
from wildfern.recipes.loading import likely_sources, list_recipes, load_recipe, recipe_text
from wildfern.recipes.schema import Component, DataEntry, Evaluation, EvaluationEntry, Model, Recipe, Tracking, Training
from wildfern.recipes.yaml_text import read_argument, read_yaml

__all__ = [
    "Component",
    "Components",
    "DataEntry",
    "Evaluation",
    "EvaluationEntry",
    "ExtraCheck",
    "Model",
    "Problem",
    "Recipe",
    "RecipeErrors",
    "Tracking",
    "Training",
    "json_schema",
    "likely_sources",
    "list_recipes",
    "load_recipe",
    "nearest",
    "read_argument",
    "read_yaml",
    "recipe_text",
]
