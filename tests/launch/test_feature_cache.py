"""Features of an evaluation are found again by the next one, as long as nothing that matters has changed."""

import csv
import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wildfern.cache_folder import cache_folder
from wildfern.launch import evaluate
from wildfern.launch.cli import app
from wildfern.launch.errors import RunError
from wildfern.launch.feature_cache import feature_store

NETWORK = {"backbones": ["test_vit"], "size": 32, "protocols": ["knn"]}


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "images" / ("dark" if number % 2 else "light")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 128, (24, 24, 3)) + 100 * (1 - number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "images"


def found(images, tmp_path, **changes):
    """How many features were found, and the rows."""
    said = []
    result = evaluate(on=[f"folder:{images}"], cache=tmp_path / "cache", say=said.append, **{**NETWORK, **changes})
    counts = [int(match[1]) for text in said if (match := re.search(r"features found in .*: (\d+)", text))]
    return sum(counts), result.rows


def test_features_are_found_until_a_file_or_an_argument_changes(images, tmp_path):
    first = found(images, tmp_path)
    assert first[0] == 0
    assert found(images, tmp_path) == (2, first[1])
    assert found(images, tmp_path, protocols=["linear"])[0] == 2
    assert found(images, tmp_path, size=48)[0] == 0
    file = images / "dark" / "1.png"
    os.utime(file, (1, 1))  # of train, as after an edit that does not change its size
    assert found(images, tmp_path)[0] == 1
    said = []
    on = [{"source": f"folder:{images}", "test_fraction": 0.4}]
    evaluate(on=on, cache=tmp_path / "cache", say=said.append, **NETWORK)
    assert not any("found" in text for text in said)


def test_labels_of_an_edited_table_are_new(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(40)]
    for number, name in enumerate(names):
        pixels = rng.integers(0, 128, (24, 24, 3)) + 100 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
    values = []
    for labels in ([number % 2 for number in range(40)], [number // 4 % 2 for number in range(40)]):
        lines = [
            f"{name},{label},{'test' if place % 4 == 3 or place % 8 == 0 else 'train'}"
            for place, (name, label) in enumerate(zip(names, labels, strict=True))
        ]
        (tmp_path / "metadata.csv").write_text("\n".join(["filename,y,split", *lines]) + "\n")
        for cache in (tmp_path / "cache", None):
            result = evaluate(on=[f"csv:{tmp_path}"], cache=cache, say=print, **NETWORK)
            values.append(result.rows[0]["value"])
    assert values[0] == values[1]
    assert values[2] == values[3] != values[0]


def test_two_folders_of_the_same_names_sizes_and_times_are_two_data_sets(tmp_path):
    for name, bright in (("a", 2), ("b", 4)):
        for number in range(40):
            file = tmp_path / name / ("even" if number % 2 == 0 else "odd") / f"{number}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 99, (16, 16, 3)) + 120 * (number % bright == 0)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
            os.utime(file, (1, 1))
    first = found(tmp_path / "a", tmp_path)
    second = found(tmp_path / "b", tmp_path)
    assert second[0] == 0
    assert second[1] != first[1]


def test_nothing_is_kept_unless_asked_for(images, tmp_path, monkeypatch):
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "mine"))
    evaluate(on=[f"folder:{images}"], say=print, **NETWORK)
    folder = cache_folder("features")
    assert not folder.exists() or not list(folder.iterdir())
    for cache in (None, "none"):
        assert feature_store(cache, 1.0).folder is None


def test_the_command_keeps_them_in_the_users_cache_folder_or_in_another(images, tmp_path, monkeypatch):
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "mine"))
    command = ["evaluate", "--backbone", "test_vit", "--size", "32", "--on", f"folder:{images}", "--protocol", "knn"]
    for extra, folder in (([], tmp_path / "mine/features"), (["--cache", str(tmp_path / "other")], tmp_path / "other")):
        result = CliRunner().invoke(app, [*command, *extra])
        assert result.exit_code == 0, result.output
        assert len(list(folder.iterdir())) == 2
    again = CliRunner().invoke(app, command)
    assert "features found in" in again.output


def test_all_rows_are_compared_with_the_one_that_is_named_and_written_as_csv(images, tmp_path):
    command = ["evaluate", "--backbone", "test_vit", "--backbone", "test_vit2", "--size", "64", "--cache", "none"]
    command += ["--on", f"folder:{images}", "--protocol", "knn", "--against", "test_vit2 random"]
    files = ["--csv", str(tmp_path / "rows.csv"), "--json", str(tmp_path / "rows.json")]
    result = CliRunner().invoke(app, [*command, *files])
    assert result.exit_code == 0, result.output
    stored = json.loads((tmp_path / "rows.json").read_text())
    assert stored["baseline"] == "test_vit2 random"
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(stored["rows"])
    for text, row in zip(rows, stored["rows"], strict=True):
        assert float(text["value"]) == row["value"]
        assert text["difference"] == ("" if row["difference"] is None else str(row["difference"]))
        assert "cosine" in text["description"]
    with pytest.raises(RunError, match=r"no such row; there are test_vit random"):
        evaluate(on=[f"folder:{images}"], against="nothing", **NETWORK)


def test_impossible_places_and_sizes(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="--cache"):
        feature_store(tmp_path / "file", 1.0)
    with pytest.raises(RunError, match="at least 0"):
        feature_store(None, -1.0)
