"""Invalid views in a recipe: each error names its key, and all are reported together."""

import pytest

from wildfern.launch.components import read_recipe
from wildfern.recipes import RecipeErrors


def complaints_of(*overrides: str) -> dict[str, str]:
    with pytest.raises(RecipeErrors) as found:
        read_recipe("quickstart", overrides)
    return {problem.key: problem.message for problem in found.value.problems}


def test_errors_of_simclr_views_are_reported_together():
    wrong = {
        "views.flip=1.5": "less than or equal to 1",
        "views.gray=-0.5": "greater than or equal to 0",
        "views.jitter=.nan": "must be a number",
        "views.brightness=.inf": "must be a number",
        "views.contrast=-1": "greater than or equal to 0",
        "views.hue=0.6": "less than or equal to 0.5",
        "views.size=3": "greater than or equal to 4",
        "views.count=0": "greater than or equal to 1",
        "views.crop_scale=[0.5,0.2]": "must be [low, high], got [0.5, 0.2]",
        "views.crop_ratio=[2,1]": "must be [low, high], got [2.0, 1.0]",
        "views.blur_sigma=[0.0,1.0]": "greater than 0",
        "training.steps=0": "greater than 0",
    }
    found = complaints_of(*wrong)
    keys = [override.partition("=")[0] for override in wrong]
    assert {key.removesuffix(".0") for key in found} == set(keys)  # of a pair, the item that is wrong is named
    for key, words in zip(keys, wrong.values(), strict=True):
        assert words in found.get(key, found.get(f"{key}.0", "")), key


def test_errors_of_multicrop_views_are_reported_together():
    found = complaints_of(
        *("method.name=dino", "views.name=dino", "views.local_count=-1", "views.local_size=2"),
        *("views.local_scale=[0.4,0.05]", "views.crop_scale=[0.5,1.2]", "views.blur=[0.1,1.1]", "views.solarize=[0.1]"),
    )
    assert {
        "views.local_count",
        "views.local_size",
        "views.local_scale",
        "views.crop_scale.1",
        "views.blur.1",
        "views.solarize",
    } <= set(found)
    assert "less than or equal to 1" in found["views.crop_scale.1"]  # a crop larger than its image


def test_bounds_that_are_equal_are_fine():
    recipe = read_recipe("quickstart", ["views.crop_scale=[1.0,1.0]", "views.crop_ratio=[1.0,1.0]"])
    assert recipe.views.arguments["crop_scale"] == (1.0, 1.0)


@pytest.mark.parametrize("preset", ["byol", "mocov3", "dino", "swav"])
def test_a_recipe_written_for_simclrs_views_may_take_others(preset):
    changes = ["method.name=dino"] if preset in ("dino", "swav") else []
    views = read_recipe("quickstart", [f"views.name={preset}", *changes]).views
    assert (views.name, views.arguments["blur"]) == (preset, 0.0)  # the recipe's one number stands for both large views


def test_invalid_operations_are_reported_under_extra():
    for operation in ("{operation: ColorJitter, brightness: -1}", "{operation: RandomErasing, p: .nan}"):
        (key,) = complaints_of(f"views.extra=[{operation}]")
        assert key == "views.extra"
