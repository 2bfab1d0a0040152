"""The lists of the section `evaluation`: names or mappings with arguments, checked against each component's own signature."""

import jsonschema
import pytest

from wildfern.recipes import EvaluationEntry, json_schema, load_recipe, read_yaml


def lists(recipe):
    on = [(entry.source, entry.arguments) for entry in recipe.evaluation.on]
    return on, [(one.name, one.arguments) for one in recipe.evaluation.protocols]


def test_names_and_mappings_with_arguments_are_read(load):
    text = """extends: minimal.yaml
evaluation:
  on: [digits, {source: "folder:x", recursive: false}]
  protocols: [linear, {name: knn, k: 5}]
"""
    recipe = load(text=text)
    assert lists(recipe) == ([("digits", {}), ("folder:x", {"recursive": False})], [("linear", {}), ("knn", {"k": 5})])
    assert recipe.evaluation.on[1].scheme == "folder"


@pytest.mark.parametrize("value", ["digits", "[digits]", "{source: digits}", "[{source: digits, size: 8}]"])
def test_a_single_entry_needs_no_list_and_defaults_are_left_out(load, value):
    recipe = load(f"evaluation.on={value}", "evaluation.protocols=knn")
    assert recipe.evaluation.on == [EvaluationEntry(source="digits")]
    assert lists(recipe)[1] == [("knn", {})]


def test_entries_without_arguments_are_written_as_names(load, folder, components):
    recipe = load(
        "evaluation.on=[digits, {source: digits, size: 16}]", "evaluation.protocols=[linear, {name: knn, k: 3}]"
    )
    written = recipe.as_dict()["evaluation"]
    assert written["on"] == ["digits", {"source": "digits", "size": 16}]
    assert written["protocols"] == ["linear", {"name": "knn", "k": 3}]
    (folder / "again.yaml").write_text(recipe.as_yaml())
    assert load_recipe(folder / "again.yaml", [], components) == recipe
    assert "plugins" not in recipe.as_dict()


def test_one_entry_is_changed_by_its_number_and_keeps_no_argument_of_another_component(load):
    text = (
        "extends: minimal.yaml\nevaluation: {on: [{source: 'folder:x', recursive: false, size: 4}], protocols: [knn]}\n"
    )
    assert lists(load("evaluation.on.0=digits", text=text))[0] == [("digits", {"size": 4})]
    assert lists(load("evaluation.protocols.0.k=7", "evaluation.protocols.1=linear", text=text))[1] == [
        ("knn", {"k": 7}),
        ("linear", {}),
    ]


def test_errors_are_reported_together_with_the_nearest_names(complaints):
    lines = complaints(
        "evaluation.on=[digit, folder, {source: digits, weight: 2, sise: 3}, 3]",
        "evaluation.protocols=[knm, {name: knn, k: 0, metrik: l2}, {k: 3}]",
        "evaluation.sedes=3",
    )
    place = "command line: evaluation."
    assert f"{place}on.0.source: unknown source 'digit'; did you mean digits? (known: digits, folder, hf, ifs)" in lines
    assert f"{place}on.1.source: needs a path: folder:PATH" in lines
    assert any(line.startswith(f"{place}on.2.weight: unknown key") for line in lines)
    assert f"{place}on.2.sise: unknown key; did you mean evaluation.on.2.size?" in lines
    assert any(line.startswith(f"{place}on.3: must be a mapping") for line in lines)
    assert f"{place}protocols.0.name: unknown protocol 'knm'; did you mean knn? (known: knn, linear)" in lines
    assert f"{place}protocols.1.k: must be greater than or equal to 1, got 0" in lines
    assert f"{place}protocols.1.metrik: unknown key; did you mean evaluation.protocols.1.metric?" in lines
    assert f"{place}protocols.2.name: is missing (known: knn, linear)" in lines
    assert f"{place}sedes: unknown key; did you mean evaluation.seeds?" in lines
    assert len(lines) == 10


@pytest.mark.parametrize(
    ("evaluation", "right"),
    [
        ("{on: digits, protocols: knn}", True),
        ("{on: [digits, {source: 'folder:x', recursive: true}], protocols: [linear, {name: knn, k: 5}]}", True),
        ("{on: [{source: digits, sise: 3}]}", False),
        ("{protocols: [{name: knn, k: 0}]}", False),
    ],
)
def test_the_editor_schema_has_all_forms(components, evaluation, right):
    tree, _ = read_yaml(f"plugins: [a.py]\nevaluation: {evaluation}", "x.yaml")
    validator = jsonschema.Draft202012Validator(json_schema(components))
    assert validator.is_valid(tree) is right


def test_arguments_of_a_former_backbone_are_dropped_with_a_message(load):
    said = []
    text = "extends: minimal.yaml\nmodel: {stem: cifar, weights: x.pt, arguments: {layers: [1, 1], in_chans: 4}}\n"
    recipe = load("model.backbone=vgg11", "model.arguments.width=3", text=text, announce=said.append)
    assert recipe.model.arguments == {"in_chans": 4, "width": 3}
    assert (recipe.model.stem, recipe.model.weights) == ("standard", None)
    assert said == [
        "model.backbone is now vgg11: dropped model.arguments.layers, model.stem, model.weights of resnet18"
    ]


def test_arguments_that_the_new_backbone_takes_are_kept_without_a_message(load):
    said = []
    text = "extends: minimal.yaml\nmodel: {stem: small, arguments: {layers: [1, 1]}}\n"
    recipe = load("model.backbone=resnet50", text=text, announce=said.append)
    assert (recipe.model.arguments, recipe.model.stem, said) == ({"layers": [1, 1]}, "cifar", [])
    assert load("model.backbone=resnet18", text=text, announce=said.append).model.arguments == {"layers": [1, 1]}
    assert said == []
