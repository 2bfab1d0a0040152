"""A run that resumes with more steps: what changes is said, and the former schedule can be held or started again."""

import pytest
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.builders import build_method, build_schedule
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.resuming import schedule_changes
from wildfern.ssl.models.teacher import cosine_momentum
from wildfern.ssl.tracking import read_records

CHANGES = [*TINY, "training.precision=fp32", "training.checkpoint_every=100"]


def recipe(*changes):
    return read_recipe("quickstart", [*CHANGES, *changes])


def factors(*changes):
    chosen = recipe(*changes)
    schedule = build_schedule(chosen)
    return [schedule.learning_rate(step) for step in range(chosen.training.steps)]


def test_a_schedule_of_its_own_length_is_held_or_started_again():
    whole = factors("training.steps=6")
    assert factors("training.steps=9", "schedule.length=6") == [*whole, whole[5], whole[5], whole[5]]
    again = factors("training.steps=5")
    assert factors("training.steps=11", "schedule.length=6", "schedule.afterwards=restart") == [*whole, *again]
    assert factors("training.steps=4", "schedule.length=6") == whole[:4]
    weights = build_schedule(recipe("training.steps=9", "schedule.length=6", "schedule.weight_decay_growth=10"))
    assert weights.weight_decay(8) == weights.weight_decay(5) > weights.weight_decay(4)


def test_a_teacher_follows_a_schedule_that_is_held():
    assert cosine_momentum(0.9, 20, 10) == cosine_momentum(0.9, 9, 10) < 1
    dino = ["method.name=dino", "method.prototypes=8", "method.momentum=0.9", "training.steps=9", "schedule.length=6"]
    for afterwards, steps in (("hold", 6), ("restart", 9)):
        tiny = [change for change in CHANGES if not change.startswith("method.")]
        method = build_method(read_recipe("quickstart", [*tiny, *dino, f"schedule.afterwards={afterwards}"]))
        momentum = method._teachers["teacher"][2]
        assert momentum(4) == cosine_momentum(0.9, 4, steps)


def test_a_longer_run_says_what_changes_before_it_trains(tmp_path, capsys):
    run = tmp_path / "run"
    pretrain("quickstart", [*CHANGES, "training.steps=6"], run=run)
    first = [row["learning_rate"] for row in read_records(run / "metrics.jsonl")]
    capsys.readouterr()
    pretrain("quickstart", [*CHANGES, "training.steps=6"], run=run, resume=True)
    assert "schedule has changed" not in capsys.readouterr().out

    with pytest.raises(RunError, match="schedule differ"):
        pretrain("quickstart", [*CHANGES, "training.steps=8", "schedule.warmup=0.5"], run=run, resume=True)
    pretrain("quickstart", [*CHANGES, "training.steps=8", "schedule.length=6"], run=run, resume=True)
    assert "schedule has changed" not in capsys.readouterr().out
    held = [row["learning_rate"] for row in read_records(run / "metrics.jsonl")]
    assert held == [*first, first[-1], first[-1]]

    pretrain("quickstart", [*CHANGES, "training.steps=16"], run=run, resume=True)
    said = " ".join(capsys.readouterr().out.split())
    longer = [row["learning_rate"] for row in read_records(run / "metrics.jsonl")]
    jump = (
        f"the learning rate is {longer[8]:.2g} at step 8, after {held[7]:.2g} at step 7 ({longer[8] / held[7]:.2g} ×)"
    )
    assert f"the schedule has changed: {jump}" in said
    assert "add schedule.length=8; to start it again" in said
    assert said.index("the schedule has changed") < said.index("step 9/16")


def test_the_message_names_what_changes():
    def words(then, now, step, teacher=False):
        return " ".join(schedule_changes(recipe(*then), recipe(*now), step, teacher))

    short, long = ["training.steps=10"], ["training.steps=20"]
    assert words(short, short, 10) == words(short, long, 0) == ""
    assert "at step 5, instead of" in words(short, long, 5)
    constant = ["schedule={name: constant}"]
    assert words([*short, *constant], [*long, *constant], 10) == ""
    assert "the teacher's momentum rises over 20 steps instead of 10" in words(
        [*short, *constant], [*long, *constant], 10, teacher=True
    )
    growing = ["schedule.weight_decay_growth=10", "optimizer.weight_decay=0.04"]
    assert "the weight decay is" in words([*short, *growing], [*long, *growing], 10)
    assert "schedule.length=" not in words(short, ["training.steps=20", "schedule.length=15"], 10)
