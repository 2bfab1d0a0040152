"""A study: runs of all arms and seeds, means and deviations, a table and a plot; finished runs are not repeated."""

import json
import sys
from argparse import Namespace
from dataclasses import replace
from statistics import mean, stdev

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_runs import TINY, few_digits

from wildfern.benchmarks.studies import data, imbalance, lightly, methods
from wildfern.benchmarks.studies import study as harness
from wildfern.benchmarks.studies.study import Arm, Study, plot, run, text_table
from wildfern.launch import evaluate, pretrain
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.ssl.tracking import read_records

CHANGES = [*(change for change in TINY if not change.startswith("evaluation")), "training.steps=2"]
ON = {"numerals": "digits", "few": {"source": "finite", "of": "digits", "items": 80}}


def test_scores_of_all_arms_and_seeds(tmp_path, monkeypatch):
    arms = [Arm("hot", ["method.temperature=0.5"], group="one"), Arm("cold", ["method.temperature=0.1"], group="two")]
    study = Study("temperatures", "Two steps.", arms, ON, ("numerals", "knn"))
    monkeypatch.setattr(harness, "PROTOCOLS", ("knn",))
    few_digits(monkeypatch)
    result = run(study, [0, 1], tmp_path / "runs", CHANGES)
    rows = {(row["arm"], row["dataset"], row["protocol"]): row for row in result["rows"]}
    assert len(rows) == len(result["rows"]) == 2 * 2
    for (arm, name, protocol), row in rows.items():
        values = {"pretrained": [], "random": []}
        for seed in (0, 1):
            for one in evaluate(tmp_path / f"runs/seed={seed}" / arm, ON[name], protocol).main_rows():
                values[one["backbone"]].append(100 * one["value"])
        assert row["values"] == pytest.approx(values["pretrained"], abs=0.01)
        assert row["mean"] == pytest.approx(mean(values["pretrained"]), abs=0.01)
        assert row["std"] == pytest.approx(stdev(values["pretrained"]), abs=0.01)
        assert row["random"] == pytest.approx(mean(values["random"]), abs=0.01)
        assert row["group"] == {"hot": "one", "cold": "two"}[arm]
    table = text_table(result)
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [
        "hot",
        "cold",
        "resnet18, random weights",
    ]
    plot(result, study.main, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").size[0] > 500
    with monkeypatch.context() as forbidden:
        forbidden.setattr("wildfern.launch.pretrain", lambda *given, **named: pytest.fail("trained again"))
        forbidden.setattr("wildfern.launch.evaluate", lambda *given, **named: pytest.fail("evaluated again"))
        assert run(study, [0, 1], tmp_path / "runs", CHANGES)["rows"] == result["rows"]
    assert json.dumps(result)
    alone = replace(study, arms=arms[:1])
    assert run(alone, [0, 1], tmp_path / "runs", CHANGES)["rows"] == [
        row for row in result["rows"] if row["arm"] == "hot"
    ]


def two_steps(tmp_path, *more):
    """A study of one arm that only trains, and its settings."""
    study = Study("one", "Two steps.", [Arm("arm", [])], {"few": ON["few"]}, ("few", "knn"))
    return study, [0], tmp_path / "runs", [*CHANGES, "training.checkpoint_every=1", *more]


def test_an_interrupted_arm_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "PROTOCOLS", ("knn",))
    whole = run(*two_steps(tmp_path / "whole"))

    def interrupted(recipe, **given):
        once = recipe.model_copy(update={"training": recipe.training.model_copy(update={"steps": 1})})
        pretrain(once, **given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("wildfern.launch.pretrain", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(*two_steps(tmp_path))
    arm = tmp_path / "runs/seed=0/arm"
    assert (arm / "backbone.safetensors").is_file()
    assert run(*two_steps(tmp_path))["rows"] == whole["rows"]
    assert read_records(arm / "metrics.jsonl")[-1]["step"] == 1


def test_runs_of_other_settings_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "PROTOCOLS", ("knn",))
    found = run(*two_steps(tmp_path))
    for change in ("training.steps=3", "method.temperature=0.3"):
        with pytest.raises(RunError, match="arm is a run of other settings: choose another folder"):
            run(*two_steps(tmp_path, change))
    scores = tmp_path / "runs/seed=0/scores.json"
    for damage in ("{", "[]", '{"of": 1}'):
        scores.write_text(damage)
        assert run(*two_steps(tmp_path))["rows"] == found["rows"]
    (tmp_path / "runs/seed=0/arm.json").write_text("{}")
    with pytest.raises(RunError, match=r"arm\.json is damaged"):
        run(*two_steps(tmp_path))
    (tmp_path / "runs/seed=0/arm.json").unlink()
    with pytest.raises(RunError, match="no run of this study"):
        run(*two_steps(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "no arm has 'nothing' in its name; there are: simclr, ResNet"),
        (["--seeds", "0,a"], "must be numbers with commas"),
        (["--seeds", "1,1"], "must be different numbers"),
        (["--steps", "0"], "must be 1 or more"),
        (["--plot", "plot.xyz"], "must end in one of .png"),
        (["--json", "."], "it is a folder"),
        (["--cifar10", "parquet:no'where"], "no'where"),
        (["--cifar10", "digits"], "at most 1258, got 10000"),
        (["method.temperature=-1"], "method.temperature"),
    ],
)
def test_what_cannot_work_is_said_before_training(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["methods", "--cifar10", "cifar10", *arguments])
    monkeypatch.setattr(
        methods, "GROUPS", {"ResNet": ({"simclr": methods.RESNETS["simclr"]}, *methods.GROUPS["ResNet"][1:])}
    )
    with pytest.raises(SystemExit) as end:
        harness.command(methods.study, "methods", "")
    assert end.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [imbalance.study, data.study, methods.study, lightly.study])
def test_arms_are_valid_recipes(make):
    study = make(Namespace(cifar10="digits", steps=3))
    for arm in study.arms:
        if arm.recipe is None:  # lightly's loop
            continue
        assert read_recipe(arm.recipe, [*arm.changes, "seed=1"]).training.steps == 3


def test_weights_of_other_settings_are_refused(tmp_path):
    file, recipe = tmp_path / "lightly.safetensors", read_recipe("quickstart", CHANGES)
    settings = json.dumps(recipe.as_dict(), default=str, sort_keys=True)
    assert lightly._kept(file, settings) is None
    save_file({"weight": torch.ones(2)}, file, {"recipe": settings})
    assert lightly._kept(file, settings)["weight"].tolist() == [1, 1]
    other = read_recipe("quickstart", [*CHANGES, "seed=5"])
    with pytest.raises(RunError, match="other settings"):
        lightly.train_lightly(other, file, torch.device("cpu"))
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(RunError, match="is damaged"):
        lightly.train_lightly(recipe, file, torch.device("cpu"))


def test_what_only_one_loop_would_follow_is_refused(tmp_path):
    study = lightly.study(Namespace(cifar10="digits", steps=3))
    with pytest.raises(RunError, match="both arms"):
        lightly.run(study, [0], tmp_path, ["views.size=16"])
    with pytest.raises(RunError, match="both arms"):
        lightly.run(replace(study, arms=study.arms[1:]), [0], tmp_path, [])
    assert not list(tmp_path.iterdir())
