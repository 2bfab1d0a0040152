"""Warnings of collapse come from the logged metrics, once each, and only when a sign stays."""

import math

import pytest
from method_cases import build
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.ssl.training.collapse import LINES, CollapseWatch

HEALTHY = {"loss": 1.0, "rank_me": 20.0, "feature_std": 0.6, "uniformity": -3.0}
SIGNS = {
    "loss": (
        {"loss": math.log(2 * 64 - 1) + 0.01},
        "the loss stays at 4.854, its value when the outputs for all images",
    ),
    "rank_me": ({"rank_me": 1.2}, "rank_me is 1.20: features vary along one direction"),
    "feature_std": ({"feature_std": 0.002}, "feature_std is 0.0020: the features of all images point"),
    "uniformity": ({"uniformity": -0.01}, "uniformity is -0.010: the embeddings of all images are nearly equal"),
}


def watch(steps=1000):
    return CollapseWatch(build("simclr", steps), 64, steps)


@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_that_stays_is_said_once(sign):
    change, message = SIGNS[sign]
    one = watch()
    said = [one.messages(step, HEALTHY | change) for step in range(200, 1000, 100)]
    assert [len(messages) for messages in said] == [int(line == LINES - 1) for line in range(8)]
    assert said[LINES - 1][0].startswith(f"step {200 + 100 * (LINES - 1) + 1}: {message}")
    assert "try a lower optimizer.learning_rate" in said[LINES - 1][0]


@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_that_passes_or_comes_early_is_not(sign):
    change, _ = SIGNS[sign]
    one = watch()
    assert not any(one.messages(step, HEALTHY | change) for step in range(0, 100, 10))
    for step in range(200, 1000, 100):
        assert not one.messages(step, HEALTHY | (change if step % 300 else {}))


def test_a_method_without_a_known_loss_at_collapse_has_the_other_signs():
    one = CollapseWatch(build("mae", 10), 64, 1000)
    assert not any(one.messages(step, HEALTHY | {"loss": 0.0}) for step in range(200, 1000, 100))


def test_a_run_that_collapses_says_so(tmp_path, capfd):
    changes = [change for change in TINY if not change.startswith("method.")]
    changes += [
        "training.steps=160",
        "training.log_every=10",
        "optimizer.learning_rate=2.0e-2",
        "method={name: cacr, beta: 0.0, projection_size: 8}",
    ]
    pretrain("quickstart", changes, run=tmp_path / "run")  # attraction without repulsion
    said = [line for line in capfd.readouterr().out.splitlines() if "may have collapsed" in line]
    assert any("the embeddings of all images are nearly equal" in line for line in said)
    assert all("try a lower optimizer.learning_rate" in line for line in said)
