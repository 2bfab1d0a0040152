"""A series of runs: what is started, resumed and refused, and its table. Only the last test trains."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import TINY

from wildfern.launch import sweeping
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.recipes import RecipeErrors
from wildfern.ssl.evaluation import compare_runs, read_run

RATE = "optimizer.learning_rate"
SMALL = [*TINY, "training.steps=1"]


def rows(value):
    common = {"dataset": "digits", "protocol": "knn", "metric": "accuracy", "main": True, "share": True, "detail": ""}
    interval = {"low": value - 0.01, "high": value + 0.01, "n": 539}
    return [
        {**common, "backbone": name, "value": v, **interval} for name, v in (("random", 0.5), ("pretrained", value))
    ]


class Written:
    """In place of the processes of the runs: each writes its folder at once; `codes` are exit codes by the name of a run."""

    def __init__(self, scores, codes=()):
        self.scores, self.codes, self.commands = scores, dict(codes), []

    def __call__(self, commands, gpus, began, ended):
        for number, arguments, _ in commands:
            words = list(arguments())
            self.commands.append(words)
            began(number, None)
            path = Path(words[words.index("--run") + 1])
            code = self.codes.get(path.name, 0)
            if code == 0:
                path.mkdir(parents=True, exist_ok=True)
                changes = words[2 : words.index("--run")]
                recipe = read_recipe(words[1], changes, announce=lambda message: None)
                (path / "recipe.yaml").write_text(recipe.as_yaml())
                stored = {"baseline": "random", "protocols": {"knn": "cosine"}, "rows": rows(self.scores[path.name])}
                (path / "evaluation.json").write_text(json.dumps(stored))
            ended(number, code, "" if code == 0 else f"failed with {code}")
        return None


@pytest.fixture
def written(monkeypatch):
    def use(scores, codes=()):
        runs = Written(scores, codes)
        monkeypatch.setattr(sweeping, "run_all", runs)
        return runs

    return use


def test_the_table_has_mean_deviation_and_number_of_seeds(written, tmp_path):
    folder = tmp_path / "series"
    names = [f"learning_rate={rate},seed={seed}" for rate in (0.001, 0.003) for seed in (0, 1)]
    runs = written(dict(zip(names, (0.70, 0.74, 0.80, 0.80), strict=True)))
    table = sweeping.sweep("quickstart", [*SMALL, f"{RATE}=1e-3,3e-3"], seeds=[0, 1], run=folder)
    first, second = table.as_json()["scores"]
    assert first["pretrained"] == {
        "mean": pytest.approx(0.72),
        "sd": pytest.approx(0.0282842712),
        "n": 2,
        "values": [0.70, 0.74],
    }
    assert first["gain"]["values"] == pytest.approx([20, 24])
    assert second["pretrained"]["sd"] == 0
    assert json.loads((folder / "results.json").read_text())["scores"] == table.as_json()["scores"]
    assert "0.003" in (folder / "report.html").read_text()
    assert runs.commands[0][:2] == ["pretrain", "quickstart"]
    assert "seed=0" in runs.commands[0]


def test_resuming_trains_what_is_not_done_and_refuses_another_request(written, tmp_path):
    folder = tmp_path / "series"
    written({"seed=0": 0.7, "seed=1": 0.8}, {"seed=1": 1})
    with pytest.raises(sweeping.SeriesFailed, match=r"1 of 2 runs failed.*\n  seed=1: failed with 1") as caught:
        sweeping.pretrain_seeds("quickstart", SMALL, [0, 1], folder)
    assert caught.value.table.as_json()["scores"][0]["pretrained"]["n"] == 1
    with pytest.raises(RunError, match="already holds a series"):
        sweeping.pretrain_seeds("quickstart", SMALL, [0, 1], folder)
    with pytest.raises(RunError, match="another request"):
        sweeping.pretrain_seeds("quickstart", SMALL, [0, 2], folder, resume=True)
    with pytest.raises(RunError, match="another request"):
        sweeping.pretrain_seeds("quickstart", [*SMALL, f"{RATE}=1e-3"], [0, 1], folder, resume=True)
    runs = written({"seed=0": 0.1, "seed=1": 0.8})
    table = sweeping.pretrain_seeds("quickstart", SMALL, [0, 1], folder, resume=True)
    assert [words[-1].endswith("seed=1") for words in runs.commands] == [True]
    assert table.as_json()["scores"][0]["pretrained"]["values"] == [0.7, 0.8]
    (folder / "series.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        sweeping.pretrain_seeds("quickstart", SMALL, [0, 1], folder, resume=True)


def test_a_signal_stops_the_series_and_says_how_to_continue(monkeypatch, tmp_path):
    monkeypatch.setattr(sweeping, "run_all", lambda commands, gpus, began, ended: signal.SIGINT)
    with pytest.raises(sweeping.SeriesStopped, match=r"0 of 2 runs are done; continue .* --resume") as caught:
        sweeping.pretrain_seeds("quickstart", SMALL, [0, 1], tmp_path / "series")
    assert caught.value.exit_code == 130


def test_all_errors_of_all_settings_come_first(written, tmp_path):
    runs = written({})
    with pytest.raises(RecipeErrors) as caught:
        sweeping.sweep("quickstart", [*SMALL, f"{RATE}=1e-3,-1", "method.temperature=0.1,no"], run=tmp_path / "series")
    assert "optimizer.learning_rate" in str(caught.value)
    assert "method.temperature" in str(caught.value)
    assert "2 of 4 runs" in str(caught.value)
    assert runs.commands == []
    assert not (tmp_path / "series").exists()


def test_runs_share_a_wandb_group(written, tmp_path):
    runs = written({"seed=0": 0.7, "seed=1": 0.8})
    sweeping.pretrain_seeds("quickstart", [*SMALL, "tracking.wandb=offline"], [0, 1], tmp_path / "mine")
    assert all('tracking.group="mine"' in words for words in runs.commands)


def test_score_is_one_number_of_a_run(written, tmp_path):
    written({"seed=0": 0.7})
    sweeping.pretrain_seeds("quickstart", SMALL, [0], tmp_path / "series")
    run = tmp_path / "series" / "seed=0"
    assert sweeping.score(run, "digits", "knn") == 0.7
    assert sweeping.score(run, "digits", "knn", backbone="random") == 0.5
    with pytest.raises(RunError, match="it has digits, knn, accuracy"):
        sweeping.score(run, "digits", "linear")


def test_compare_shows_the_settings_that_differ_and_groups_seeds(written, tmp_path):
    written({"seed=0": 0.7, "seed=1": 0.8, "seed=3": 0.9})
    sweeping.pretrain_seeds("quickstart", SMALL, [0, 1], tmp_path / "one")
    sweeping.pretrain_seeds("quickstart", [*SMALL, "method.temperature=0.5"], [3], tmp_path / "other")
    folders = [tmp_path / "one" / "seed=0", tmp_path / "one" / "seed=1", tmp_path / "other" / "seed=3"]
    compared = compare_runs(list(map(read_run, folders)), ["a seed=0", "a seed=1", "b"]).as_json()
    assert compared["settings"] == {"seed": ["0, 1", "3"], "method.temperature": ["0.1", "0.5"]}
    first, second = compared["scores"]
    assert (first["pretrained"]["n"], second["pretrained"]["n"]) == (2, 1)
    assert second["difference"] == pytest.approx(15)
    assert first["interval"] is None
    assert second["interval"] == pytest.approx([0.89, 0.91])


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-1", "1.5"])
def test_seeds_are_whole_numbers(text):
    with pytest.raises(RunError, match="--seeds must be whole numbers"):
        sweeping.parse_seeds(text)


@pytest.mark.slow
def test_the_command_trains_each_run_in_a_process(tmp_path):
    command = [sys.executable, "-m", "wildfern.launch.command", "sweep", "quickstart", *SMALL]
    command += ["method.temperature=0.1,0.2", "--run", "series"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "run 2 of 2: temperature=0.2" in done.stderr + done.stdout
    for temperature in (0.1, 0.2):
        assert (tmp_path / "series" / f"temperature={temperature}" / "backbone.safetensors").is_file()
    again = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "2 are done" in again.stderr + again.stdout
