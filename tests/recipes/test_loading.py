"""Loading and merging of recipes (extends, file, command line), and writing them as YAML."""

import dataclasses
import os
import subprocess
import sys
from typing import Annotated

import pytest
import yaml
from pydantic import BaseModel, Field

from wildfern.recipes import DataEntry, RecipeErrors, list_recipes, load_recipe, recipe_text


def test_the_smallest_recipe_is_complete(load):
    recipe = load()
    assert recipe.seed == 0
    assert recipe.data == [DataEntry(source="ifs", arguments={"size": 64, "points": 1000, "seed": 0})]
    assert recipe.method.name == "simclr"
    assert recipe.method.arguments == {"temperature": 0.5, "dims": (64, 32)}
    assert recipe.optimizer.arguments == {"learning_rate": 1e-3, "weight_decay": 0.0}
    assert recipe.engine.name == "torch"
    assert [protocol.name for protocol in recipe.evaluation.protocols] == ["linear", "knn"]
    assert (recipe.training.precision, recipe.training.gradient_clip) == ("auto", None)
    assert recipe.tracking.wandb == "off"


@pytest.mark.parametrize(
    ("override", "section", "expected"),
    [
        ("training.gradient_clip=1e-3", lambda recipe: recipe.training.gradient_clip, 1e-3),
        ("training.gradient_clip=3", lambda recipe: recipe.training.gradient_clip, 3.0),
        ("training.gradient_clip=null", lambda recipe: recipe.training.gradient_clip, None),
        ("training.steps=100_000", lambda recipe: recipe.training.steps, 100_000),
        ("training.steps=010", lambda recipe: recipe.training.steps, 10),
        ("tracking.run_name='1e-3'", lambda recipe: recipe.tracking.run_name, "1e-3"),
        ('tracking.run_name="a=b # c"', lambda recipe: recipe.tracking.run_name, "a=b # c"),
        ("tracking.run_name=2024-01-31", lambda recipe: recipe.tracking.run_name, "2024-01-31"),
        ("tracking.run_name=12:30", lambda recipe: recipe.tracking.run_name, "12:30"),
        ("tracking.run_name=", lambda recipe: recipe.tracking.run_name, None),
        ("tracking.wandb=off", lambda recipe: recipe.tracking.wandb, "off"),
        (
            "evaluation.on=[digits, 'folder:/a b']",
            lambda recipe: [e.source for e in recipe.evaluation.on],
            ["digits", "folder:/a b"],
        ),
        (
            "evaluation.protocols.1=linear",
            lambda recipe: [p.name for p in recipe.evaluation.protocols],
            ["knn", "linear"],
        ),
        ("evaluation.protocols.0=linear", lambda recipe: [p.name for p in recipe.evaluation.protocols], ["linear"]),
        ("views.scale=[1e-1, 1]", lambda recipe: recipe.views.arguments["scale"], (0.1, 1.0)),
        ("views={size: 64}", lambda recipe: recipe.views.arguments["size"], 64),
        ("model.arguments.img_size=64", lambda recipe: recipe.model.arguments, {"img_size": 64, "deep": {"a": 1}}),
        ("model.arguments.deep.b=[2]", lambda recipe: recipe.model.arguments["deep"], {"a": 1, "b": [2]}),
        ("model.arguments={}", lambda recipe: recipe.model.arguments, {}),
        ("data=digits", lambda recipe: [entry.source for entry in recipe.data], ["digits"]),
        ("data=folder:/a/b", lambda recipe: (recipe.data[0].source, recipe.data[0].scheme), ("folder:/a/b", "folder")),
        ("data=hf:user/images", lambda recipe: recipe.data[0].arguments, {"column": "image"}),
        ("data.weight=2", lambda recipe: recipe.data[0].weight, 2.0),
    ],
)
def test_overrides_are_yaml(load, override, section, expected):
    text = """
        extends: minimal.yaml
        evaluation: {protocols: [knn]}
        model: {arguments: {deep: {a: 1}}}
    """
    assert section(load(override, text=text)) == expected


def test_list_items_are_overridden_by_number_and_added_at_the_end(load):
    text = "{extends: minimal.yaml, data: [ifs, {source: digits, weight: 3}]}"
    recipe = load("data.0.weight=2", "data.1.size=16", "data.2=folder:/a", "data.2.recursive=false", text=text)
    assert [(entry.source, entry.weight) for entry in recipe.data] == [("ifs", 2), ("digits", 3), ("folder:/a", 1)]
    assert recipe.data[1].arguments == {"size": 16}
    assert recipe.data[2].arguments == {"recursive": False, "size": None}


def test_a_chain_of_recipes_merges_key_by_key(folder, load, complaints):
    (folder / "deeper").mkdir()
    (folder / "deeper" / "middle.yaml").write_text(
        "extends: ../minimal.yaml\ntraining: {steps: 20, batch_size: 16}\nmethod: {temperature: 0.3, dims: [4, 2]}"
    )
    text = "extends: deeper/middle.yaml\ntraining: {steps: 30}\nmethod: {dims: [8, 8]}"
    recipe = load("training.log_every=1", text=text)
    assert (recipe.training.steps, recipe.training.batch_size, recipe.training.log_every) == (30, 16, 1)
    assert recipe.method.arguments == {"temperature": 0.3, "dims": (8, 8)}

    (folder / "deeper" / "middle.yaml").write_text("extends: ../minimal.yaml\ntraining: {stepz: 1}\nviews: {sise: 3}")
    (folder / "minimal.yaml").write_text((folder / "minimal.yaml").read_text().replace("resnet18", "1"))
    assert complaints("training.batch_size=x", text=text) == [
        "deeper/middle.yaml: views.sise: unknown key; did you mean views.size?",
        "deeper/../minimal.yaml: model.backbone: must be a string, got 1 (put it in quotes if it is meant as text)",
        'command line: training.batch_size: must be an integer, got "x"',
        "deeper/middle.yaml: training.stepz: unknown key; did you mean training.steps?",
    ]


def test_a_bundled_recipe_is_extended_by_its_name(folder, load, monkeypatch, components):
    (folder / "minimal.yaml").write_text("\n# A small one.\n# More.\n" + (folder / "minimal.yaml").read_text())
    monkeypatch.setattr("wildfern.recipes.loading._bundled", lambda: {"fern": folder / "minimal.yaml"})
    assert load(text="{extends: fern, seed: 3}").seed == 3
    assert load_recipe("fern", [], components) == load(text="extends: fern")
    assert list_recipes() == {"fern": "A small one."}
    assert recipe_text("fern").endswith("batch_size: 8}\n")


def test_extending_in_a_circle_or_nothing_is_an_error(folder, complaints):
    (folder / "other.yaml").write_text("{extends: ./my.yaml, seed: -1}")
    assert complaints(text="extends: other.yaml") == [
        "other.yaml: extends: files extend each other in a circle: my.yaml → other.yaml → ./my.yaml",
        "other.yaml: seed: must be greater than or equal to 0, got -1",
    ]
    assert complaints(text="extends: minimall.yaml") == [
        "my.yaml: extends: no such file: minimall.yaml; did you mean minimal.yaml?"
    ]
    assert complaints(text="extends: [minimal.yaml]") == [
        'my.yaml: extends: must be one name or path, got ["minimal.yaml"]'
    ]


def test_another_component_drops_the_arguments_of_the_former_one(load, complaints):
    text = "{extends: minimal.yaml, method: {temperature: 0.3, dims: [4, 2]}, data: {points: 99, size: 16, weight: 2}}"
    recipe = load("method.momentum=0.9", "method.name=dino", "data.source=digits", text=text)
    assert recipe.method.arguments == {"temperature": 0.3, "momentum": 0.9, "center": None, "copy": False}
    assert (recipe.data[0].arguments, recipe.data[0].weight) == ({"size": 16}, 2)

    recipe = load("data.0.source=digits", text="{extends: minimal.yaml, data: [{source: ifs, points: 99, size: 16}]}")
    assert recipe.data[0].arguments == {"size": 16}

    written_here = "{extends: minimal.yaml, method: {name: dino, momentum: 1, dims: [1, 1]}}"
    (line,) = complaints(text=written_here)
    assert line.startswith("my.yaml: method.dims: unknown key")


def test_a_value_that_only_the_former_component_accepts_is_dropped_with_a_message(load, complaints):
    said = []
    text = "{extends: minimal.yaml, data: {source: digits, size: 4}}"
    recipe = load("data.source=ifs", text=text, announce=said.append)
    assert recipe.data[0].arguments == {"size": 64, "points": 1000, "seed": 0}
    assert said == ["data.source is now ifs: dropped data.size of digits, which ifs does not accept"]

    (line,) = complaints("data.source=ifs", "data.size=4", text=text)
    assert line == "command line: data.size: must be greater than or equal to 8, got 4"
    (line,) = complaints("data.source=ifs", text="{extends: minimal.yaml, data: {source: digits, size: small}}")
    assert line.startswith("my.yaml: data.size: must be an integer")


def test_of_nested_settings_only_the_keys_that_the_new_component_does_not_accept_are_dropped(folder, components):
    class Wide(BaseModel, extra="forbid"):
        width: int = 1
        speed: int = 1

    class Narrow(BaseModel, extra="forbid"):
        width: Annotated[int, Field(le=8)] = 1

    def wide(total_steps: int, *, shape: Wide, factors: tuple[int, ...] = ()): ...

    def narrow(
        total_steps: int, *, shape: Narrow | None = None, factors: tuple[Annotated[int, Field(le=8)], ...] = ()
    ): ...

    components = dataclasses.replace(components, schedules={"cosine": wide, "narrow": narrow})
    text = "{extends: minimal.yaml, schedule: {shape: {width: 4, speed: 2}, factors: [1, 9]}}"
    (folder / "my.yaml").write_text(text)

    def load_it(*overrides):
        said = []
        recipe = load_recipe("my.yaml", list(overrides), components, base_dir=folder, announce=said.append)
        return recipe.schedule.arguments, said

    arguments, said = load_it("schedule.name=narrow")
    assert arguments == {"shape": Narrow(width=4), "factors": ()}
    dropped = "schedule.shape.speed, schedule.factors"
    assert said == [f"schedule.name is now narrow: dropped {dropped} of cosine, which narrow does not accept"]
    assert load_it("schedule.name=narrow", "schedule.shape.width=5")[0]["shape"] == Narrow(width=5)
    with pytest.raises(RecipeErrors, match=r"command line: schedule.shape.speed: unknown key"):
        load_it("schedule.name=narrow", "schedule.shape.speed=5")
    (folder / "my.yaml").write_text(text.replace("width: 4", "width: 9"))
    assert load_it("schedule.name=narrow")[0]["shape"] == Narrow(width=1)


def test_an_error_in_the_former_component_is_still_reported(complaints):
    text = "{extends: minimal.yaml, method: {temprature: 0.3}}"
    (line,) = complaints("method.name=dino", "method.momentum=1", text=text)
    assert line == "my.yaml: method.temprature: unknown key; did you mean method.temperature?"


def test_the_resolved_recipe_reads_back_equal(folder, load, components):
    text = """
        extends: minimal.yaml
        data: [ifs, {source: "folder:/a: b/#c", weight: 1e-5}]
        model: {arguments: {"on": off, number: "12", float: "1e-3", "no": [{x: ~}, "null", ü], empty: {}}}
        method: {name: dino, momentum: 1, copy: 0.5}
        evaluation: {on: [digits], few_shot: [1, 10], every: 5}
        tracking: {run_name: "0x10"}
    """
    recipe = load(text=text)
    (folder / "resolved.yaml").write_text(recipe.as_yaml())
    assert load_recipe(folder / "resolved.yaml", [], components) == recipe
    assert recipe.model.arguments == {
        "on": "off",
        "number": "12",
        "float": "1e-3",
        "no": [{"x": None}, "null", "ü"],
        "empty": {},
    }
    assert yaml.safe_load(recipe.as_yaml()) == recipe.as_dict()
    assert list(recipe.as_dict()) == [
        "seed", "data", "views", "model", "method", "optimizer",
        "schedule", "training", "engine", "evaluation", "tracking",
    ]  # fmt: skip
    assert "weight: 1.0e-05" in recipe.as_yaml()
    assert "few_shot: [1, 10]" in recipe.as_yaml()


def test_a_recipe_does_not_change_after_loading(load):
    with pytest.raises(ValueError, match="frozen"):
        load().training.steps = 3


def test_importing_recipes_does_not_import_torch():
    heavy = (
        "import sys, wildfern.recipes; print({'torch', 'numpy', 'wildfern.ssl', 'wildfern.launch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs")
def test_a_recipe_that_is_a_fifo_is_not_called_missing(tmp_path, components):
    os.mkfifo(tmp_path / "recipe.yaml")
    with pytest.raises(RecipeErrors, match=r"recipe\.yaml: is neither a file nor a folder$"):
        load_recipe(tmp_path / "recipe.yaml", [], components)
