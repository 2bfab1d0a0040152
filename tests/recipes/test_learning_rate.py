"""`optimizer.base_learning_rate`: the learning rate follows the batch size."""

import pytest

from wildfern.recipes import RecipeErrors, json_schema, load_recipe
from wildfern.recipes.learning_rate import scaled_rate

BASE = "extends: minimal.yaml\noptimizer: {base_learning_rate: 0.1}\n"


def rate(recipe):
    return recipe.optimizer_arguments["learning_rate"]


@pytest.mark.parametrize(
    ("batch_size", "linear", "sqrt"), [(256, 0.1, 0.1), (1024, 0.1 * 4, 0.1 * 2), (64, 0.1 / 4, 0.1 / 2)]
)
def test_the_rate_is_that_of_the_rule(load, batch_size, linear, sqrt):
    size = f"training.batch_size={batch_size}"
    assert rate(load(size, text=BASE)) == linear
    assert rate(load(size, "optimizer.scaling=sqrt", text=BASE)) == sqrt
    assert load(size, text=BASE).optimizer_arguments == {"learning_rate": linear, "weight_decay": 0.0}


def test_the_square_root_of_any_batch():
    assert scaled_rate(0.075, 100, "sqrt") == pytest.approx(0.075 * (100 / 256) ** 0.5, rel=1e-15)


def test_the_written_recipe_says_what_was_stated_and_scales_again(load, folder, components):
    recipe = load("training.batch_size=512", "optimizer.scaling=sqrt", text=BASE)
    stated = {"name": "adam", "base_learning_rate": 0.1, "scaling": "sqrt", "weight_decay": 0.0}
    assert recipe.as_dict()["optimizer"] == stated
    (folder / "resolved.yaml").write_text(recipe.as_yaml())
    again = load_recipe("resolved.yaml", [], components, base_dir=folder)
    assert again == recipe
    larger = load_recipe("resolved.yaml", ["training.batch_size=1024"], components, base_dir=folder)
    assert rate(larger) == 0.1 * 2


def test_a_stated_rate_is_written_as_before(load):
    assert load().as_dict()["optimizer"] == {"name": "adam", "learning_rate": 1e-3, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("text", "override", "expected", "message"),
    [
        (BASE, "optimizer.learning_rate=0.3", 0.3, "learning_rate replaces optimizer.base_learning_rate"),
        (
            BASE.replace("0.1", "0.1, scaling: sqrt"),
            "optimizer.learning_rate=0.3",
            0.3,
            "learning_rate replaces optimizer.base_learning_rate and optimizer.scaling",
        ),
        (
            "extends: minimal.yaml",
            "optimizer.base_learning_rate=0.2",
            0.2 * 8 / 256,
            "base_learning_rate replaces optimizer.learning_rate",
        ),
        (
            BASE,
            "optimizer={name: adam, learning_rate: 0.3}",
            0.3,
            "learning_rate replaces optimizer.base_learning_rate",
        ),
    ],
)
def test_the_command_line_replaces_the_other_form(load, text, override, expected, message):
    said = []
    recipe = load(override, text=text, announce=said.append)
    assert rate(recipe) == expected
    assert said == [f"optimizer.{message} of the recipe"]


def test_a_file_replaces_the_form_that_it_extends_silently(load):
    said = []
    assert rate(load(text=BASE, announce=said.append)) == 0.1 * 8 / 256
    assert said == []


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ["optimizer.base_learning_rate=0.1", "optimizer.learning_rate=0.1"],
            "command line: optimizer.base_learning_rate: is given together with optimizer.learning_rate: give one of the two "
            "(base_learning_rate is for 256 images and follows the batch size)",
        ),
        (
            ["optimizer.scaling=sqrt"],
            "command line: optimizer.scaling: applies to optimizer.base_learning_rate, which is not given",
        ),
        (
            ["optimizer.base_learning_rate=fast"],
            'command line: optimizer.base_learning_rate: must be a number, got "fast"',
        ),
        (
            ["optimizer.base_learning_rate=0.1", "optimizer.scaling=squared"],
            "command line: optimizer.scaling: must be 'linear' or 'sqrt', got \"squared\"",
        ),
    ],
)
def test_errors(load, overrides, problem):
    with pytest.raises(RecipeErrors) as caught:
        load(*overrides)
    assert str(caught.value) == problem


def test_other_errors_of_the_recipe_are_reported_with_it(load):
    with pytest.raises(RecipeErrors) as caught:
        load("training.batch_size=many", "optimizer.weight_decay=-1", text=BASE)
    assert [problem.key for problem in caught.value.problems] == ["optimizer.weight_decay", "training.batch_size"]


def test_editors_know_both_forms_and_that_one_excludes_the_other(components):
    adam = json_schema(components)["properties"]["optimizer"]["anyOf"][0]
    assert set(adam["properties"]) == {"name", "learning_rate", "weight_decay", "base_learning_rate", "scaling"}
    assert adam["not"] == {"required": ["learning_rate", "base_learning_rate"]}
