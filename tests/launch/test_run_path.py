"""The summary of a run that a notebook shows."""

import copy
import json
import pickle
import shutil
from pathlib import Path

import pytest
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.run_path import RunPath

EVALUATION = {
    "baseline": "random",
    "protocols": {"knn": "in words"},
    "rows": [
        {"dataset": "digits", "protocol": "knn", "backbone": name, "metric": "accuracy", "value": value}
        for name, value in (("random", 0.5), ("pretrained", 0.75))
    ],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return pretrain("quickstart", [*TINY, "training.steps=2"], run=tmp_path_factory.mktemp("runs") / "a b")


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return RunPath(shutil.copytree(finished, "a b"))


def test_what_pretrain_returns_is_a_path(finished):
    assert isinstance(finished, Path)
    assert finished == Path(str(finished))
    assert hash(finished) == hash(Path(str(finished)))
    assert str(finished / "recipe.yaml") == f"{finished}/recipe.yaml"
    assert pickle.loads(pickle.dumps(finished)) == copy.deepcopy(finished) == finished


def test_it_shows_folder_recipe_steps_and_the_way_to_the_report(run):
    html = run._repr_html_()
    assert "<b>simclr · resnet18 · ifs</b> in <code>a b</code><br>2 of 2 steps, last loss " in html
    assert '<a href="./a%20b/report.html" target="_blank">report</a>' in html
    assert "<table>" not in html
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
    assert "75.0 %</td>" in run._repr_html_()


def test_files_outside_the_working_folder_are_named_and_missing_ones_too(run, tmp_path, monkeypatch):
    (run / "report.html").unlink()
    path = RunPath(tmp_path / "a b")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    html = path._repr_html_()
    assert f"no report yet · views: <code>{path}/views.png</code>" in html


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"[]", b"{", b"a: [1", b'{"step": 1e999}\n'])
def test_a_damaged_run_is_shown_as_far_as_it_can_be(run, content):
    for file in ("recipe.yaml", "metrics.jsonl", "evaluation.json", "environment.json"):
        (run / file).write_bytes(content)
    assert "<code>a b</code>" in run._repr_html_()


def test_training_settings_of_any_kind_do_not_matter(run):
    for text in ("training: 3", "training: {steps: many}", "training: {steps: [1]}"):
        (run / "recipe.yaml").write_text(text)
        assert "<br>2 steps" in run._repr_html_()


def test_names_are_escaped(run):
    (run / "recipe.yaml").write_text("name: <script>alert(1)</script>")
    assert "<script>" not in run._repr_html_()


def test_other_paths_are_shown_as_paths(run):
    assert (run / "recipe.yaml")._repr_html_() is None
    assert (run / "nothing")._repr_html_() is None
