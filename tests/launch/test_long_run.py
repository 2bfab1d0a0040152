"""Messages about runs that take long on a CPU."""

import pytest
import torch
from small_runs import TINY

from wildfern.launch import long_run
from wildfern.launch.components import read_recipe
from wildfern.launch.long_run import MeasuredLongRun, expected_long_run
from wildfern.ssl.training.footprint import Footprint

CPU = torch.device("cpu")
MEDIUM = ["training.batch_size=64", "training.precision=fp32"]


def recipe(*changes):
    return read_recipe("quickstart", [*TINY, *MEDIUM, *changes])


@pytest.fixture
def slow(monkeypatch):
    """A CPU with 2 GFLOP/s, of which training reaches half, and steps of 1 TFLOP: 1000 s each."""
    monkeypatch.setattr(long_run, "matrix_flops", lambda device, precision: 2e9)
    monkeypatch.setattr(long_run, "_forward_flops", lambda *arguments: 1e12 / 3 / 64)
    fields = dict.fromkeys(Footprint.__dataclass_fields__, 0)
    made = long_run.estimates.Estimate(
        gpus=1, images=64, batch_size=64, steps=1, step_flops=10**12, stages={}, chosen=None, checkpoint=0, sharded=False, kept=1,
        footprint=Footprint(**fields),
    )  # fmt: skip
    monkeypatch.setattr(long_run.estimates, "estimate", lambda recipe, gpus: made)


@pytest.mark.parametrize(
    ("steps", "done", "processes", "words"),
    [
        (1000, 0, 1, "about 12 days on this CPU, expected from 1 TFLOP per step"),
        (1000, 0, 4, "about 2.9 days on this CPU"),
        (1000, 500, 1, "about 5.8 days on this CPU"),
        (1000, 950, 1, None),  # 14 hours
        (86, 0, 1, None),
        (100, 0, 1, "about 28 hours on this CPU"),
    ],
)
def test_what_takes_more_than_a_day_is_said_before_the_first_step(slow, steps, done, processes, words):
    said = expected_long_run(recipe(f"training.steps={steps}"), CPU, done, processes)
    assert [line.startswith(words or "") for line in said] == ([True] if words else [])


def test_nothing_is_said_on_a_gpu_nor_computed_for_a_tiny_run(slow, monkeypatch):
    assert expected_long_run(recipe("training.steps=1000"), torch.device("cuda")) == []
    monkeypatch.setattr(long_run, "matrix_flops", lambda device, precision: pytest.fail("measured"))
    assert expected_long_run(recipe("training.steps=70"), CPU) == []


def test_flops_of_the_backbone_on_all_views():
    """A 3 x 3 convolution of stride 1 from c to d channels has 2·9·c·d·h·w."""
    small = recipe("model.backbone=small_alexnet", "model.arguments={}")
    one, two = (long_run._forward_flops(small, [(count, 32)], 3) for count in (1, 2))
    assert two == 2 * one > 2 * 9 * 3 * 8 * 32 * 32
    state = torch.random.get_rng_state()
    long_run._forward_flops(small, [(1, 32)], 3)
    assert torch.equal(state, torch.random.get_rng_state())


def messages(steps, times):
    """What is said when steps 0, 1, … end at these times."""
    said, clock = [], iter(times)
    notice = MeasuredLongRun(recipe(f"training.steps={steps}"), said.append, lambda: next(clock))
    for step in range(len(times)):
        notice(step)
    return said


def test_measured_after_ten_steps_without_the_first():
    assert messages(100_000, [500.0 + step for step in range(10)]) == []
    [line] = messages(100_000, [500.0 + step for step in range(11)])
    assert line.startswith(
        "about 28 hours left on this CPU at 64 images/s (mean of 10 steps); training.steps=3600 takes an hour;"
    )


def test_slow_steps_are_measured_after_two():
    [line] = messages(2000, [0.0, 4000.0, 8000.0])
    assert line.startswith(
        "about 92 days left on this CPU at 0.016 images/s (mean of 2 steps); one step takes more than"
    )


def test_it_is_said_once_and_not_for_short_runs():
    assert len(messages(100_000, [1.0 * step for step in range(11)] * 1)) == 1
    notice = MeasuredLongRun(recipe("training.steps=7000"), lambda text: pytest.fail(text), iter(range(99)).__next__)
    for step in range(40):
        notice(step)
