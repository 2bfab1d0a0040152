"""Figures of the long run with kills, from what was noted of its processes."""

import json

import pytest

from wildfern.benchmarks.studies import soak


def life(memory: list[float], steps: list[float]) -> soak.Life:
    found = soak.Life(seconds=60.0, first_step=10, last_step=40, steps=steps)
    found.memory = [[value, value] for value in memory]
    found.files = [[20, 30]] * len(memory)
    return found


def test_growth_is_that_within_lives():
    minute = 60 / soak.EVERY
    lives = [
        life([100 + n / minute for n in range(10)], []),
        life([500.0] * 10, []),
    ]  # two ranks: 2 MB a minute, then 0
    found = soak.summary(lives)
    assert found["growth of memory MB a minute"] == pytest.approx(1.0)
    assert found["memory of both ranks, largest MB"] == 1000
    assert (found["open files, largest"], found["growth of open files a minute"]) == (50, 0)
    assert found["steps a minute"] == 30


def test_steps_that_become_slower_are_seen():
    found = soak.summary([life([1.0], [0.1] * 20 + [0.15] * 20 + [0.2] * 20), life([1.0], [0.1] * 60)])
    assert found["step, median of last third to that of first third of a life"] == pytest.approx(1.5)
    assert found["step, median s"] == 0.1


def test_a_run_that_was_killed_before_its_first_step_has_none(tmp_path):
    assert soak.steps_of(tmp_path) == 0
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 4, "loss": 1.0}) + "\n")
    assert soak.steps_of(tmp_path) == 5
