"""What a model card says of scores, data, start and recipe."""

import hashlib
import itertools
import json

import pytest
import torch
import yaml

from wildfern.bounded_yaml import read_value
from wildfern.launch.components import read_recipe
from wildfern.launch.model_card import data_words, model_card
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.evaluation.metrics.accuracy_spread import PartAccuracy, accuracy_gap, worst_accuracy

KEYS = ("metric", "value", "low", "high", "n", "detail", "share")
SPLIT = {"train_images": 1258, "train_split": None, "test_images": 539, "test_split": "folder valid"}
ROW = {
    **{"dataset": "digits", "protocol": "knn", "backbone": "pretrained", "metric": "accuracy"},
    **{
        "value": 0.9123,
        "low": 0.8851,
        "high": 0.9334,
        "n": 539,
        "share": True,
        "detail": "95 % Wilson interval over 539",
    },
    **SPLIT,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    run = RunFolder(tmp_path / "run")
    run.begin(read_recipe("quickstart", ["data=folder:photos"]))
    run.write_backbone({"weight": torch.ones(2)})
    return run


def card(folder, **evaluation):
    if evaluation:
        folder.write_json("evaluation.json", evaluation)
    return list(model_card(folder, "exported.pth", "    import timm", "read back, the same"))


def test_scores_have_intervals_the_baseline_protocols_and_images(folder):
    random = {**ROW, "backbone": "random", "value": 0.5, "low": None, "high": None, "n": None, "detail": ""}
    pretrained = {**ROW, "difference_low": 38.2, "difference_high": 44.04}
    nats = {**ROW, "protocol": "density", "metric": "loss", "value": 1.25, "low": 1.0, "high": 1.5, "share": False}
    lines = card(
        folder,
        rows=[pretrained, random, nats],
        protocols={"knn": "k = 20, cosine", "unused": "of no row"},
        baseline="random",
        notes={"digits": ["run was also trained on <2> of 539 test images"]},
    )
    start = lines.index("## Scores")
    assert lines[start + 2].count("|") == lines[start + 3].count("|")
    assert lines[start + 4 : start + 6] == [
        "| digits | knn | pretrained | accuracy | 91.2 % (88.5 to 93.3) | 539 | 50.0 % | +41.2 (+38.2 to +44.0) |  |",
        "| digits | density | pretrained | loss | 1.25 (1 to 1.5) | 539 |  |  |  |",
    ]
    assert lines[start + 6 : lines.index("## Recipe")] == [
        "",
        "- pretrained: the exported weights",
        "- random: the same network with random weights",
        "- difference: over random, in points for values in percent; intervals paired over test images",
        "- knn: k = 20, cosine",
        "- digits: train: 1,258 images · test: 539 images (folder valid)",
        "- digits: run was also trained on 2 of 539 test images",
        "",
        "95 %: intervals over the n test images unless a protocol says otherwise. All 3 scores, and how each interval was found, "
        "are in `evaluation.json` of the run.",
        "",
    ]


def test_rows_of_earlier_versions_are_converted(folder):
    old = {"dataset": "digits", "protocol": "linear", "backbone": "untrained", "accuracy": 0.25, "std": 0.01}
    assert "| digits | linear | random | accuracy | 25.0 % (24.0 to 26.0) |  |  |  |  |" in card(folder, rows=[old])


def test_the_worst_class_and_groups_are_beside_the_main_score(folder):
    classes = [PartAccuracy("fern, tree", 50, 30), PartAccuracy("moss", 50, 45)]
    sites = [PartAccuracy("north|south", 40, 28), PartAccuracy("east", 60, 47)]
    scores = [
        worst_accuracy("worst_class_accuracy", classes, "classes"),
        worst_accuracy("worst_group_accuracy (site)", sites, "groups", "test images left out: unknown: 3"),
        accuracy_gap("group_accuracy_gap (site)", sites, "groups"),
    ]
    rows = [{**ROW, **{key: getattr(score, key) for key in KEYS}, "breakdown": True} for score in scores]
    unnamed = {**rows[0], "protocol": "linear", "detail": "of another version"}
    lines = [
        line for line in card(folder, rows=[ROW, *rows, {**ROW, "protocol": "linear"}, unnamed]) if "| digits" in line
    ]
    bounds = [f"{100 * score.low:.1f} to {100 * score.high:.1f}" for score in scores]
    worst = f"class fern, tree: 60.0 % ({bounds[0]}); group (site) northsouth: 70.0 % ({bounds[1]})"
    assert [line.split(" | ")[-1] for line in lines] == [f"{worst} |", f"class: 60.0 % ({bounds[0]}) |"]


def test_rows_with_differences_that_are_no_numbers_are_left_out(folder):
    random = {**ROW, "backbone": "random", "value": 0.5}
    rows = [{**ROW, "difference_low": "<b>", "difference_high": 1.0}, {**ROW, "metric": "top5_accuracy"}, random]
    lines = card(folder, rows=rows, baseline="random")
    assert not any("41.2" in line for line in lines if "| accuracy" in line)
    assert not any("<b>" in line for line in lines)


def test_a_card_of_many_protocols_stays_short_and_says_where_all_rows_are(folder):
    def row(dataset, protocol, backbone, number):
        metric = f"metric_{number}" if number else "accuracy"
        return {**ROW, "dataset": dataset, "protocol": f"p{protocol}", "backbone": backbone, "metric": metric}

    each = itertools.product(("digits", "cifar10"), range(13), ("random", "pretrained"), range(9))
    protocols = {f"p{number}": f"the protocol {number}" for number in range(13)}
    lines = card(folder, rows=[row(*one) for one in each], protocols=protocols, baseline="random")
    assert len(lines) <= 120
    assert sum(line.startswith(("| digits |", "| cifar10 |")) for line in lines) == 26
    assert all(f"- p{number}: the protocol {number}" in lines for number in range(13))
    assert not any("metric_1" in line for line in lines)
    assert any("All 468 scores" in line and "`evaluation.json`" in line for line in lines)
    for number in range(13, 100):
        protocols[f"p{number}"] = f"the protocol {number}"
    each = itertools.product(("digits",), range(100), ("random", "pretrained"), range(1))
    lines = card(folder, rows=[row(*one) for one in each], protocols=protocols, baseline="random")
    assert len(lines) <= 160
    assert "- … and 40 more rows" in lines


def test_scores_of_other_weights_are_not_listed(folder):
    sha256 = hashlib.sha256((folder.path / "backbone.safetensors").read_bytes()).hexdigest()
    assert any("91.2 %" in line for line in card(folder, rows=[ROW], backbone_sha256=sha256))
    lines = card(folder, rows=[ROW], backbone_sha256="0" * 64)
    assert not any("91.2 %" in line for line in lines)
    assert "`evaluation.json` of the run is of other weights than these: evaluate the run again." in lines
    assert "The run was not evaluated." in card(folder, rows=[])


def test_damaged_scores_are_named(folder):
    (folder.path / "evaluation.json").write_text("[")
    assert any(line.startswith("`evaluation.json` of the run: not JSON") for line in card(folder))


def test_the_recipe_is_in_the_card_and_cannot_end_its_block(folder):
    recipe = folder.path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("folder:photos", '"folder:````/photos"'))
    lines = card(folder)
    start = lines.index("`````yaml")
    assert lines[-1] == "`````"
    assert "seed: 0" in lines[start:]
    assert any("folder:````/photos" in line for line in lines[start:])
    assert lines[lines.index("```python") + 1] == "import timm"


@pytest.mark.parametrize("project", ["wildfern", '[a] {b}: it\'s, "c" \\ on', "a  b, " * 60])
def test_the_recipe_in_the_card_is_read_back_as_the_same_recipe(folder, project):
    data = "[{source: 'folder:photos', weight: 1}, {source: ifs, size: 32, maps: [2, 4]}]"
    changes = [f"data={data}", "optimizer.learning_rate=1e-5", f"tracking.project={json.dumps(project)}"]
    recipe = read_recipe("quickstart", changes)
    (folder.path / "recipe.yaml").write_text(recipe.as_yaml())
    lines = card(folder)
    start = lines.index("```yaml")
    found = "\n".join(lines[start + 1 : -1])
    assert read_value(found)[0] == yaml.safe_load(found) == recipe.as_dict()
    assert len(lines) - start < 45


def test_data_has_counts_licenses_and_what_identifies_the_files(folder):
    curated = {"manifest": "a" * 64, "licenses": {"CC0-1.0": 7, "CC-BY-4.0": 2}}
    entry = {
        "source": "folder:photos",
        "items": 9,
        "files": 9,
        "names": "b" * 64,
        "contents": None,
        "curated": curated,
    }
    folder.write_json("data.json", [entry])
    recipe = folder.recipe(needs=())
    assert data_words(folder, recipe) == ("folder:photos (9 images)", "CC0-1.0 (7), CC-BY-4.0 (2)")
    lines = card(folder)
    assert "    - licenses: CC0-1.0 (7), CC-BY-4.0 (2)" in lines
    assert f"    - names and sizes of the files: SHA-256 `{'b' * 64}`" in lines
    folder.write_json("data.json", [{key: value for key, value in entry.items() if key != "curated"}])
    assert data_words(folder, recipe)[1] == "unknown"
