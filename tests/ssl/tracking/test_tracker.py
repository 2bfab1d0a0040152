import io
import math

import pytest
import torch
from rich.console import Console

from wildfern.ssl.tracking import Tracker, read_records


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class WandbRecord:
    def __init__(self):
        self.logged = []
        self.exit_codes = []

    def log(self, step, values):
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.exit_codes.append(exit_code)


def tracker(run_dir, total_steps, start_step=0, log_every=1, **arguments):
    return Tracker(run_dir, total_steps, start_step, log_every, console=Console(file=io.StringIO()), **arguments)


def train(run_dir, start_step, stop_step, total_steps=10, log_every=3):
    """A loop like that of training: log, evaluate, sync, checkpoint."""
    with tracker(run_dir, total_steps, start_step, log_every) as made:
        for step in range(start_step, stop_step):
            if made.due(step):
                made.log(step, {"loss": math.cos(step)}, {"data_wait": 0.1 * start_step})
            if step % 5 == 4:
                made.evaluation(step, {"knn": step / 10})
            made.sync()


@pytest.mark.parametrize(("killed_after", "resumed_at"), [(8, 5), (6, 6), (10, 1), (3, 0)])
def test_metrics_of_a_resumed_run_are_the_bytes_of_an_uninterrupted_one(tmp_path, killed_after, resumed_at):
    train(tmp_path / "whole", 0, 10)
    train(tmp_path / "broken", 0, killed_after)
    train(tmp_path / "broken", resumed_at, 10)
    assert (tmp_path / "broken" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    steps = [record["step"] for record in read_records(tmp_path / "broken" / "timings.jsonl")]
    assert steps == [0, 2, 5, 8, 9]


def test_each_number_goes_to_its_file_and_all_to_wandb(tmp_path):
    wandb = WandbRecord()
    with tracker(tmp_path, 2, wandb=wandb) as made:
        made.log(0, {"loss": torch.tensor(0.5)}, {"data_wait": 0.25})
        made.evaluation(0, {"knn": 0.75})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0, "loss": 0.5}\n{"step": 0, "knn": 0.75}\n'
    assert (tmp_path / "timings.jsonl").read_text() == '{"step": 0, "data_wait": 0.25}\n'
    assert wandb.logged == [(0, {"loss": 0.5, "timings/data_wait": 0.25}), (0, {"knn": 0.75})]
    assert wandb.exit_codes == [0]


def test_images_per_second_count_the_steps_since_the_last_logged_one(tmp_path):
    clock = Clock()
    with tracker(tmp_path, 100, 10, 5, images_per_step=64, clock=clock) as made:
        clock.now += 10.0
        made.log(14, {"loss": 1.0})
        clock.now += 2.0
        with made.untimed():
            clock.now += 50.0
        made.log(19, {"loss": 1.0})
        made.log(19, {"online_probe_accuracy": 0.5})  # logging the same step again adds no images
        clock.now += 4.0
        made.log(24, {"loss": 1.0}, {"images_per_second": 7.0})  # the caller's value takes precedence
    timings = read_records(tmp_path / "timings.jsonl")
    assert [(line["step"], line["images_per_second"]) for line in timings] == [(14, 32.0), (19, 160.0), (24, 7.0)]


def test_the_time_of_a_step_follows_from_the_speed(tmp_path):
    clock = Clock()
    with tracker(tmp_path, 100, 0, 5, images_per_step=64, clock=clock) as made:
        clock.now += 10.0
        made.log(4, {"loss": 1.0})
    assert read_records(tmp_path / "timings.jsonl")[0]["step_seconds"] == 2.0


def test_the_time_to_the_first_step_is_a_timing_and_not_a_metric(tmp_path):
    clock, screen = Clock(), io.StringIO()
    clock.now = 100.0
    with Tracker(tmp_path, 9, 4, clock=clock, since=93.0, console=Console(file=screen)) as made:
        clock.now += 1.5
        made.first_step(4)
        made.log(4, {"loss": 1.0})
    assert read_records(tmp_path / "timings.jsonl")[0] == {"step": 4, "startup_seconds": 8.5}
    assert "first step after 8.5 s" in screen.getvalue()
    assert read_records(tmp_path / "metrics.jsonl") == [{"step": 4, "loss": 1.0}]


def test_other_ranks_write_nothing(tmp_path):
    screen = io.StringIO()
    wandb = WandbRecord()
    with Tracker(tmp_path / "run", 5, enabled=False, wandb=wandb, console=Console(file=screen)) as made:
        made.log(0, {"loss": 1.0}, {"data_wait": 0.0})
        made.first_step(0)
        made.evaluation(0, {"knn": 1.0})
        made.message("hello")
        made.sync()
    assert not (tmp_path / "run").exists()
    assert screen.getvalue() == ""
    assert (wandb.logged, wandb.exit_codes) == ([], [])


def test_a_failed_run_is_marked_failed_in_wandb(tmp_path):
    wandb = WandbRecord()
    with pytest.raises(RuntimeError), tracker(tmp_path, 5, wandb=wandb):
        raise RuntimeError
    assert wandb.exit_codes == [1]


def test_due_depends_on_the_step_alone(tmp_path):
    for start_step in (0, 4):
        with tracker(tmp_path / str(start_step), 11, start_step, 4) as made:
            assert [step for step in range(11) if made.due(step)] == [0, 3, 7, 10]
