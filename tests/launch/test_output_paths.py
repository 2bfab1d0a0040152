"""Files that commands write: folders are made, and errors come before the work."""

import json

import pytest

from wildfern.launch import output_paths, pretrain
from wildfern.launch.errors import RunError
from wildfern.launch.output_paths import output_file, written_path


def test_missing_folders_are_made(tmp_path):
    file = output_file(tmp_path / "no" / "such" / "x.json")
    file.write_text("{}")
    assert (tmp_path / "no" / "such" / "x.json").is_file()


def test_home_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert written_path("~/runs/a") == tmp_path / "runs" / "a"
    assert output_file("~/runs/a.json") == tmp_path / "runs" / "a.json"


@pytest.mark.parametrize("path", ["~/x.json", "~nobody-here/x.json"])
def test_an_unknown_home_is_an_error_in_words(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(output_paths.os.path, "expanduser", str)  # as without HOME and without an entry of the user
    with pytest.raises(RunError, match="the home folder that ~ stands for is not known here"):
        output_file(path)
    with pytest.raises(RunError, match="the home folder"):
        pretrain("quickstart", ["training.steps=1"], run=path)
    assert not list(tmp_path.iterdir())


def test_paths_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*file/x\.json"):
        output_file(tmp_path / "file" / "x.json")
    with pytest.raises(RunError, match="it is a folder; name a file in it"):
        output_file(tmp_path)


def test_files_of_a_run_are_not_overwritten(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("")
    output_file(run / "evaluation.json")  # a folder with a recipe is not a run yet
    (run / "environment.json").write_text("")
    for name in ("recipe.yaml", "evaluation.json", "backbone.safetensors"):
        with pytest.raises(RunError, match=rf"{name}: it belongs to the run run; choose another file"):
            output_file(run / name)
    for name in ("report.html", "views.png", "scores.json"):
        assert output_file(run / name) == run / name


def test_an_estimate_is_written_to_a_new_folder(wildfern, tmp_path):
    result = wildfern("plan", "quickstart", "--json", "new/folder/plan.json")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "new/folder/plan.json").read_text())


def test_what_a_run_and_a_series_keep_is_not_written_over(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints" / "step_4").mkdir(parents=True)
    for name in ("recipe.yaml", "environment.json"):
        (run / name).write_text("")
    (tmp_path / "series.json").write_text("")
    for name in ("checkpoints/step_4/checkpoint.json", "checkpoints/new.html", "plugins/x.py"):
        with pytest.raises(RunError, match=r"(checkpoints|plugins)/ belongs to the run run; choose another file"):
            output_file(run / name)
    with pytest.raises(RunError, match="it belongs to the series"):
        output_file(tmp_path / "series.json")
    assert output_file(run / "neighbors.html") == run / "neighbors.html"
    assert output_file(tmp_path / "other" / "series.json").name == "series.json"
