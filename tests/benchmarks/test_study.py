"""A study: runs of all arms and seeds, means and deviations, a table and a plot; finished runs are not repeated."""

import json
from argparse import Namespace
from dataclasses import replace
from statistics import mean, stdev

import pytest
from PIL import Image
from small_runs import TINY

from wildfern.benchmarks.studies import data, imbalance, lightly, methods
from wildfern.benchmarks.studies import study as harness
from wildfern.benchmarks.studies.study import Arm, Study, plot, run, text_table
from wildfern.launch import evaluate
from wildfern.launch.components import read_recipe

CHANGES = [*(change for change in TINY if not change.startswith("evaluation")), "training.steps=2"]
ON = {"numerals": "digits", "few": {"source": "finite", "of": "digits", "items": 300}}


def test_scores_of_all_arms_and_seeds(tmp_path, monkeypatch):
    arms = [Arm("hot", ["method.temperature=0.5"], group="one"), Arm("cold", ["method.temperature=0.1"], group="two")]
    study = Study("temperatures", "Two steps.", arms, ON, ("numerals", "knn"))
    monkeypatch.setattr(harness, "PROTOCOLS", ("knn",))
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


@pytest.mark.parametrize("make", [imbalance.study, data.study, methods.study, lightly.study])
def test_arms_are_valid_recipes(make):
    study = make(Namespace(cifar10="digits", steps=3))
    for arm in study.arms:
        if arm.recipe is None:  # lightly's loop
            continue
        assert read_recipe(arm.recipe, [*arm.changes, "seed=1"]).training.steps == 3


def test_what_only_one_loop_would_follow_is_refused(tmp_path):
    study = lightly.study(Namespace(cifar10="digits", steps=3))
    with pytest.raises(SystemExit, match="both arms"):
        lightly.run(study, [0], tmp_path, ["views.size=16"])
    with pytest.raises(SystemExit, match="both arms"):
        lightly.run(replace(study, arms=study.arms[1:]), [0], tmp_path, [])
    assert not list(tmp_path.iterdir())
