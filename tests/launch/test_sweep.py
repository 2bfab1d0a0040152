"""Series of runs: trained in processes of their own, resumed, stopped, and put into one table."""

import json
import os
import signal
import statistics
import threading
import time

import numpy as np
import pytest
from forked_series import ForkedChild
from PIL import Image
from small_runs import TINY

from wildfern.launch import SeriesFailed, pretrain, score, sweep
from wildfern.launch.errors import RunError
from wildfern.launch.sweeping import SeriesStopped, parse_seeds, pretrain_seeds
from wildfern.recipes import RecipeErrors

FEW = [change for change in TINY if not change.startswith("data.")]
EVALUATED = [
    "evaluation.on=[{source: folder:labeled, test_fraction: 0.5}]",
    "evaluation.protocols=[{name: knn, k: 1}]",
    "evaluation.few_shot=[]",
]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A working folder, and runs in forked processes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wildfern.launch.series_processes.start", ForkedChild)
    return tmp_path


def draw_images(folder, number=8):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(folder.name))
    for place in range(number):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{place}.png")


def states(folder) -> dict[str, str]:
    return {run["folder"]: run["state"] for run in json.loads((folder / "series.json").read_text())["runs"]}


def test_a_failing_run_does_not_stop_the_others_and_is_tried_again(workplace, wildfern):
    (workplace / "empty").mkdir()
    for name in ("a", "bb"):
        draw_images(workplace / "labeled" / name, 12)
    data = "data={source: ifs, size: 32, points: 200},{source: 'folder:empty'}"
    changes = [data, *[c for c in FEW if c != "evaluation.on=[]"], "training.steps=2", *EVALUATED]
    command = ["sweep", "quickstart", *changes, "--seeds", "0,1", "--gpus", "0,1", "--run", "s", "--json", "t.json"]
    done = wildfern(*command)
    assert done.returncode == 1, done.stderr
    series = workplace / "s"
    good = "data=source-ifs-size-32-points-200"
    bad = "data=source-folder-empty"
    assert states(series) == {f"{good},seed=0": "done", f"{good},seed=1": "done"} | {
        f"{bad},seed={seed}": "failed" for seed in (0, 1)
    }
    assert done.stderr.startswith("2 of 4 runs failed; --resume tries them again")
    assert "no images under empty" in done.stderr.splitlines()[2]
    assert "step 2/2" in (series / "logs" / f"{good},seed=1.txt").read_text()

    which = json.loads((series / f"{good},seed=0" / "evaluation.json").read_text())["rows"][0]
    which = which["dataset"], which["protocol"]
    values = [score(series / f"{good},seed={seed}", *which) for seed in (0, 1)]
    randoms = [score(series / f"{good},seed={seed}", *which, backbone="random") for seed in (0, 1)]
    table = json.loads((workplace / "t.json").read_text())
    assert table == json.loads((series / "results.json").read_text())
    [row] = [row for row in table["scores"] if row["main"]]
    assert row["pretrained"] == {
        "mean": pytest.approx(sum(values) / 2),
        "sd": pytest.approx(abs(values[0] - values[1]) / 2**0.5),
        "n": 2,
        "values": values,
    }
    gains = [100 * (after - before) for after, before in zip(values, randoms, strict=True)]
    assert row["gain"]["sd"] == pytest.approx(statistics.stdev(gains))
    mean, sd = 100 * row["pretrained"]["mean"], 100 * row["pretrained"]["sd"]
    assert f"{mean:.1f} ± {sd:.1f} %" in done.stdout
    assert f"{mean:.1f} ± {sd:.1f} %" in (series / "report.html").read_text()

    alone = pretrain("quickstart", [data.partition("},")[0] + "}", *changes[1:], "seed=1"], run="alone")
    assert (alone / "metrics.jsonl").read_bytes() == (series / f"{good},seed=1" / "metrics.jsonl").read_bytes()

    draw_images(workplace / "empty")
    before = (series / f"{good},seed=0" / "environment.json").read_bytes()
    again = wildfern(*command, "--resume")
    assert again.returncode == 0, again.stderr
    assert "series of 4 runs (2 settings x 2 seeds) in s; 2 are done" in again.stdout
    assert set(states(series).values()) == {"done"}
    assert (series / f"{good},seed=0" / "environment.json").read_bytes() == before
    assert len(json.loads((series / "results.json").read_text())["groups"]) == 2


def test_ctrl_c_stops_the_run_with_a_checkpoint_and_resume_continues_it(workplace):
    changes = [*TINY, "training.steps=120"]
    metrics = workplace / "s" / "seed=3" / "metrics.jsonl"

    def interrupt():
        until = time.monotonic() + 60
        while time.monotonic() < until and not (metrics.is_file() and metrics.stat().st_size):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SeriesStopped, match=r"stopped by SIGINT: 0 of 2 runs .*--run s and --resume") as stopped:
        pretrain_seeds("quickstart", changes, [3, 4], run="s")
    assert stopped.value.exit_code == 130
    assert states(workplace / "s") == {"seed=3": "stopped", "seed=4": "waiting"}
    assert list((workplace / "s" / "seed=3" / "checkpoints").glob("step_*"))
    series = json.loads((workplace / "s" / "series.json").read_text())
    series["runs"][1]["state"] = "done"  # the second run is not what this is about
    (workplace / "s" / "series.json").write_text(json.dumps(series))
    (workplace / "s" / "seed=4").mkdir()
    (workplace / "s" / "seed=4" / "recipe.yaml").write_text("seed: 4\n")
    table = pretrain_seeds("quickstart", changes, [3, 4], run="s", resume=True)
    assert len(metrics.read_text().splitlines()) == 120
    assert table.left_out == {"seed=3": "no scores", "seed=4": "no scores"}


class Refused:
    """A process that has ended with an error at once; `started` has the commands."""

    started: list

    def __init__(self, arguments, gpu, out, err):
        self.started.append((list(arguments), gpu))
        os.write(err, b"a warning\n\nthe reason\n")
        self.pid = 0

    def poll(self):
        return 2


@pytest.fixture
def started(tmp_path, monkeypatch):
    """The commands of runs that are not really started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Refused, "started", [], raising=False)
    monkeypatch.setattr("wildfern.launch.series_processes.start", Refused)
    return Refused.started


def test_runs_are_commands_and_share_a_wandb_group(started, tmp_path):
    changes = ["optimizer.learning_rate=1e-3,2e-3", "tracking.wandb=offline"]
    with pytest.raises(SeriesFailed, match="2 of 2 runs failed") as failed:
        sweep("quickstart", changes, run="runs/mine", gpus=[3])
    assert failed.value.failed == dict.fromkeys(["learning_rate=0.001", "learning_rate=0.002"], "the reason")
    assert (tmp_path / "runs/mine/logs/learning_rate=0.001.txt").read_text() == "a warning\n\nthe reason\n"
    words, gpu = started[0]
    assert gpu == "3"
    assert words == [
        *("pretrain", "quickstart", "optimizer.learning_rate=1e-3", "tracking.wandb=offline", 'tracking.group="mine"'),
        *("--run", "runs/mine/learning_rate=0.001"),
    ]
    started.clear()
    own = [changes[0], "tracking={wandb: offline, group: theirs}"]
    with pytest.raises(SeriesFailed):
        sweep("quickstart", own, run="other")
    assert not any("tracking.group" in word for words, _ in started for word in words)


def test_another_request_in_the_same_folder_is_refused(started, tmp_path):
    (tmp_path / "r.yaml").write_text("extends: quickstart\n")
    request = {"recipe": "r.yaml", "changes": ["optimizer.learning_rate=1e-3,2e-3"], "run": "s"}
    with pytest.raises(SeriesFailed):
        sweep(**request)
    for changed, said in (
        ({}, "s already holds a series: add --resume"),
        ({"resume": True, "changes": ["optimizer.learning_rate=1e-3,3e-3"]}, "new: learning_rate=0.003"),
        ({"resume": True, "seeds": [0, 1]}, "it has 2 runs, and this request 4"),
        ({"resume": True, "recipe": "quickstart"}, "it was started with the recipe 'r.yaml', not 'quickstart'"),
        ({"resume": True, "changes": [*request["changes"], "training.steps=7"]}, "had the changes .* and now"),
    ):
        with pytest.raises(RunError, match=said):
            sweep(**request | changed)
    (tmp_path / "r.yaml").write_text("extends: quickstart\ntraining: {steps: 7}\n")
    with pytest.raises(RunError, match=r"the recipe of learning_rate=0\.001 has changed since"):
        sweep(**request, resume=True)
    (tmp_path / "s" / "series.json").write_text("[]")
    with pytest.raises(RunError, match=r"series\.json is damaged: it must be a mapping"):
        sweep(**request, resume=True)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "notes.txt").touch()
    with pytest.raises(RunError, match=r"t is not empty \(it has notes\.txt\)"):
        sweep(**request | {"run": "t"})
    with pytest.raises(RunError, match="--resume requires --run"):
        sweep(**request | {"run": None}, resume=True)
    assert len(started) == 2


def test_a_recipe_that_is_edited_meanwhile_is_an_error_of_its_runs(started, tmp_path, monkeypatch):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("extends: quickstart\n")

    class Editing(Refused):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            recipe.write_text("extends: quickstart\ntraining: {steps: 7}\n")

    monkeypatch.setattr("wildfern.launch.series_processes.start", Editing)
    with pytest.raises(SeriesFailed) as failed:
        sweep("r.yaml", seeds=[0, 1], run="s")
    assert failed.value.failed["seed=0"] == "the reason"
    assert failed.value.failed["seed=1"].startswith("the recipe has changed since the series began")


def test_all_errors_of_all_settings_come_before_the_first_run(started, tmp_path):
    with pytest.raises(RecipeErrors) as errors:
        sweep(
            "quickstart", ["method.temperature=0.1,-1", "optimizer.learning_rate=1e-3,2e-3", "views.sizes=3"], run="s"
        )
    assert str(errors.value).splitlines() == [
        "command line: views.sizes: unknown key; did you mean views.size?",
        "command line: method.temperature: must be greater than 0, got -1 (in 2 of 4 runs, the first "
        "temperature=-1,learning_rate=0.001)",
    ]
    assert not (tmp_path / "s").exists()
    assert started == []


def test_random_points_follow_from_the_seed_of_the_recipe(started, tmp_path):
    found = []
    for seed in (1, 1, 2):
        with pytest.raises(SeriesFailed):
            sweep("quickstart", [f"seed={seed}", "method.temperature=uniform:0.1..0.5"], random=2, run=f"s{len(found)}")
        found.append([words[3] for words, _ in started])
        started.clear()
    assert found[0] == found[1] != found[2]
    with pytest.raises(RunError, match="--random and --list exclude each other"):
        sweep("quickstart", [], random=1, list_file="x.yaml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep", "quickstart"], "nothing varies"),
        (["sweep", "quickstart", "--seeds", "0,x"], "--seeds must be whole numbers"),
        (["sweep", "quickstart", "--seeds", "0,0"], "seeds must be different ones"),
        (["pretrain", "quickstart", "--seeds", "0,1", "--resume"], "--resume requires --run DIR"),
        (["sweep", "quickstart", "--seeds", "0,1", "--gpus", "0,0"], "--gpus names a GPU twice: 0,0"),
        (["pretrain", "quickstart", "seed=3", "--seeds", "0,1"], "seed: is given here and in --seeds"),
        (["sweep", "quickstar", "--seeds", "0,1"], "did you mean quickstart?"),
        (["compare", "nowhere"], "nowhere: there is no such folder"),
    ],
)
def test_one_clear_message(wildfern, arguments, said):
    done = wildfern(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout
    assert said in done.stderr


def test_compare_names_what_it_cannot_read_and_compares_the_others(wildfern, tmp_path):
    for number, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(f"seed: 1\noptimizer: {{learning_rate: {number}}}\n")
        row = {"dataset": "digits", "protocol": "knn", "backbone": "pretrained", "metric": "accuracy", "share": True}
        rows = [row | {"value": 0.25 + number / 4, "low": 0.2, "high": 0.3}]
        (tmp_path / name / "evaluation.json").write_text(json.dumps({"rows": rows}))
    done = wildfern("compare", "a", "nowhere", "b", "--json", "c.json", "--out", "c.html")
    assert done.returncode == 0, done.stderr
    assert "nowhere: there is no such folder" in done.stdout
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["settings"] == {"optimizer.learning_rate": ["0", "1"]}
    assert [row["difference"] for row in found["scores"]] == [None, 25.0]
    assert found["left_out"] == {"nowhere": "there is no such folder"}
    assert "nowhere: there is no such folder" in (tmp_path / "c.html").read_text()
    assert "a is named twice" in wildfern("compare", "a", "b", "./a").stderr


def test_seeds_are_numbers():
    assert parse_seeds("0, 1,12") == [0, 1, 12]
    with pytest.raises(RunError, match="at least 0, got True"):
        sweep("quickstart", seeds=[True])


def test_a_score_that_is_missing_is_named(tmp_path):
    (tmp_path / "recipe.yaml").write_text("seed: 1\n")
    row = {
        "dataset": "digits",
        "protocol": "few_shot (classifier=knn, shots=5)",
        "backbone": "pretrained",
        "value": 0.25,
    }
    rows = [row | {"metric": "accuracy"}, row | {"metric": "balanced_accuracy", "value": 0.5}]
    (tmp_path / "evaluation.json").write_text(json.dumps({"rows": rows}))
    assert score(tmp_path, "digits", "knn, 5-shot") == 0.25
    assert score(tmp_path, "digits", row["protocol"], "balanced_accuracy") == 0.5
    with pytest.raises(RunError, match=r"no score digits, linear, pretrained; it has digits, knn, 5-shot, accuracy"):
        score(tmp_path, "digits", "linear")
