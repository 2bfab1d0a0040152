"""A study: runs of all arms and seeds, means and deviations, a table and a plot; finished runs are not repeated."""

import json
from argparse import Namespace
from statistics import mean, stdev

import pytest
from PIL import Image
from small_runs import TINY

from wildfern.benchmarks.studies import data, imbalance
from wildfern.benchmarks.studies.study import Arm, Study, plot, run, scores, text_table
from wildfern.launch.components import read_recipe

CHANGES = [*(change for change in TINY if not change.startswith("evaluation")), "training.steps=2"]
ON = "evaluation={on: [digits], protocols: [knn], few_shot: []}"


def test_scores_of_all_arms_and_seeds(tmp_path, monkeypatch):
    arms = [
        Arm("hot", [ON, "method.temperature=0.5"], group="one"),
        Arm("cold", [ON, "method.temperature=0.1"], group="two"),
    ]
    study = Study("temperatures", "Two steps.", arms, ("numerals", "knn"), {"digits": "numerals"})
    result = run(study, [0, 1], tmp_path / "runs", CHANGES)
    assert [(row["arm"], row["backbone"]) for row in result["rows"]] == [
        *[("hot", "random"), ("hot", "pretrained"), ("cold", "random"), ("cold", "pretrained")],
    ]
    for row in result["rows"]:
        values = [
            100 * one["value"]
            for seed in (0, 1)
            for one in scores(tmp_path / "runs" / row["arm"] / f"seed={seed}")
            if one["backbone"] == row["backbone"]
        ]
        assert row["dataset"] == "numerals"
        assert row["mean"] == pytest.approx(mean(values), abs=0.01)
        assert row["std"] == pytest.approx(stdev(values), abs=0.01)
    table = text_table(result)
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["hot", "cold", "random network"]
    plot(result, study.main, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").size[0] > 500
    monkeypatch.setattr("wildfern.launch.pretrain", lambda *given, **named: pytest.fail("trained again"))
    assert run(study, [0, 1], tmp_path / "runs", CHANGES)["rows"] == result["rows"]
    assert json.dumps(result)


@pytest.mark.parametrize("make", [imbalance.study, data.study])
def test_arms_are_valid_recipes(make):
    study = make(Namespace(cifar10="digits", steps=3))
    for arm in study.arms:
        assert read_recipe(arm.recipe, [*arm.changes, "seed=1"]).training.steps == 3
