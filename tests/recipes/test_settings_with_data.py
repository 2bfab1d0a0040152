"""Arguments that are mappings with keys of their own, including sources of images."""

import dataclasses
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from wildfern.recipes import RecipeErrors, json_schema, load_recipe


class Mixing(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    data: Any
    share: float = Field(1.0, ge=0, le=1)


def mixed_crops(*, size: int = 32, mixing: Mixing | None = None, label: str | None = None):
    if mixing is not None and mixing.share > 0.9 and size < 8:
        raise ValueError("mixing: that share is too much for small views")


@pytest.fixture(scope="session")
def components(components):
    views = {**components.views, "mixed_crops": mixed_crops}
    return dataclasses.replace(components, views=views, constructible=components.constructible | {"mixed_crops"})


MIXED = "{extends: minimal.yaml, views: {name: mixed_crops, mixing: {data: ifs}}}"
FRACTALS = {"source": "ifs", "weight": 1.0, "fingerprint": "names", "size": 64, "points": 1000, "seed": 0}


def test_sources_have_the_form_of_the_data_section(load):
    one = load(text=MIXED)
    entry = one.views.arguments["mixing"].data[0]
    assert (entry.source, entry.weight, entry.arguments["points"]) == ("ifs", 1.0, 1000)
    assert one.as_dict()["views"]["mixing"] == {"data": [FRACTALS], "share": 1.0}
    several = load("views.mixing.data=[{source: ifs, size: 8, weight: 3}, digits]", text=MIXED)
    assert several.as_dict()["views"]["mixing"]["data"] == [
        {**FRACTALS, "weight": 3.0, "size": 8},
        {"source": "digits", "weight": 1.0, "fingerprint": "names", "size": 8},
    ]
    assert load(text="extends: minimal.yaml").as_dict()["views"].get("mixing") is None


def test_a_written_recipe_loads_equal(load, folder, components):
    recipe = load("views.mixing.data=[ifs, {source: 'folder:/a', size: 9}]", "views.mixing.share=0.5", text=MIXED)
    (folder / "again.yaml").write_text(recipe.as_yaml())
    again = load_recipe(folder / "again.yaml", [], components)
    assert again == recipe
    assert again.as_yaml() == recipe.as_yaml()
    changed = load_recipe(folder / "again.yaml", ["views.mixing.data.1.size=10"], components)
    assert changed != recipe
    assert changed.views.arguments["mixing"].data[1].arguments["size"] == 10


def test_single_keys_can_be_changed_and_another_source_drops_the_former_ones(load):
    recipe = load("views.mixing.data.size=16", "views.mixing.share=0.25", text=MIXED)
    mixing = recipe.views.arguments["mixing"]
    assert (mixing.share, mixing.data[0].arguments["size"]) == (0.25, 16)
    text = "{extends: minimal.yaml, views: {name: mixed_crops, mixing: {data: {source: ifs, points: 500}}}}"
    assert load(text=text).views.arguments["mixing"].data[0].arguments["points"] == 500
    other = load("views.mixing.data.source=digits", text=text).views.arguments["mixing"].data[0]
    assert (other.source, other.arguments) == ("digits", {"size": 8})
    assert load("views.mixing=null", text=MIXED).views.arguments["mixing"] is None
    nothing = "{extends: minimal.yaml, views: {name: mixed_crops, mixing: null}}"
    assert load("views.mixing.data=digits", text=nothing).views.arguments["mixing"].data[0].source == "digits"


def test_all_errors_are_reported_together(complaints):
    lines = complaints(
        "views.mixing.data=[{source: ifss}, {source: ifs, pionts: 3}, {source: folder}, {source: ifs, points: 1}]",
        "views.mixing.share=1.5",
        "views.mixing.shar=0.5",
        "training.steps=0",
        text=MIXED,
    )
    for line in (
        "command line: views.mixing.data.0.source: unknown source 'ifss'; did you mean ifs?",
        "command line: views.mixing.data.1.pionts: unknown key; did you mean views.mixing.data.1.points?",
        "command line: views.mixing.data.2.source: needs a path: folder:PATH",
        "command line: views.mixing.share: must be less than or equal to 1, got 1.5",
        "command line: views.mixing.shar: unknown key; did you mean views.mixing.share?",
        "command line: training.steps: must be greater than 0, got 0",
    ):
        assert any(found.startswith(line) for found in lines), (line, lines)
    assert any("views.mixing.data.3.points: points must be at least size = 64" in found for found in lines)
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("mixing", "message"),
    [
        ("dead", 'views.mixing: must be a mapping, got "dead"'),
        ("{share: 0.5}", "views.mixing.data: is missing"),
        ("{data: []}", "views.mixing.data: must be a source or a list of sources, got []"),
        ("{data: 3}", "views.mixing.data: must be a source or a list of sources, got 3"),
        ("{data: {weight: 2}}", "views.mixing.data.source: is missing"),
        ("{data: [ifs, {source: ifs, weight: 0}]}", "views.mixing.data.1.weight: must be greater than 0, got 0"),
    ],
)
def test_each_error_has_its_own_key(complaints, mixing, message):
    (line,) = complaints(text=f"{{extends: minimal.yaml, views: {{name: mixed_crops, mixing: {mixing}}}}}")
    assert message in line


def test_errors_of_the_component_and_of_extra_checks_have_their_keys(complaints, load):
    (line,) = complaints("views.size=4", text=MIXED)
    assert "views.mixing: mixing: that share is too much for small views" in line

    def no_fractals(recipe):
        for number, entry in enumerate(recipe.views.arguments["mixing"].data):
            if entry.source == "ifs":
                yield f"views.mixing.data.{number}.source", "no fractals today"

    with pytest.raises(RecipeErrors) as caught:
        load(text=MIXED, extra_checks=[no_fractals])
    (problem,) = caught.value.problems
    assert (problem.key, problem.file) == ("views.mixing.data.source", "my.yaml")


def test_the_editor_schema_has_sources_in_settings(components):
    schema = json_schema(components)
    form = next(form for form in schema["properties"]["views"]["anyOf"] if form["title"] == "mixed_crops")
    assert {"$ref": "#/$defs/Mixing"} in form["properties"]["mixing"]["anyOf"]
    mixing = schema["$defs"]["Mixing"]
    assert "required" not in mixing
    assert {"$ref": "#/$defs/data_entry"} in mixing["properties"]["data"]["anyOf"]
    assert mixing["additionalProperties"] is False
