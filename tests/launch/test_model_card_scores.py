"""What a model card says of scores, data, start and recipe."""

import hashlib

import pytest
import torch

from wildfern.launch.components import read_recipe
from wildfern.launch.model_card import data_words, model_card
from wildfern.launch.run_folder import RunFolder

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


def test_scores_have_intervals_protocols_and_images(folder):
    random = {**ROW, "backbone": "random", "value": 0.5, "low": None, "high": None, "n": None, "detail": ""}
    nats = {**ROW, "metric": "loss", "value": 1.25, "low": 1.0, "high": 1.5, "share": False}
    lines = card(folder, rows=[ROW, random, nats], protocols={"knn": "k = 20, cosine"}, baseline="random")
    assert "| digits | knn | pretrained | accuracy | 91.23 % | 88.51 % – 93.34 % | 539 |" in lines
    assert "| digits | knn | random | accuracy | 50.00 % |  |  |" in lines
    assert "| digits | knn | pretrained | loss | 1.25 | 1 – 1.5 | 539 |" in lines
    assert "- knn: k = 20, cosine" in lines
    assert "- digits: train: 1,258 images · test: 539 images (folder valid)" in lines
    assert "- interval of knn, accuracy: 95 % Wilson interval over 539" in lines
    assert "- random: the same network with random weights" in lines


def test_rows_of_earlier_versions_are_converted(folder):
    old = {"dataset": "digits", "protocol": "linear", "backbone": "untrained", "accuracy": 0.25, "std": 0.01}
    assert "| digits | linear | random | accuracy | 25.00 % | 24.00 % – 26.00 % |  |" in card(folder, rows=[old])


def test_scores_of_other_weights_are_not_listed(folder):
    sha256 = hashlib.sha256((folder.path / "backbone.safetensors").read_bytes()).hexdigest()
    assert any("91.23 %" in line for line in card(folder, rows=[ROW], backbone_sha256=sha256))
    lines = card(folder, rows=[ROW], backbone_sha256="0" * 64)
    assert not any("91.23 %" in line for line in lines)
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
