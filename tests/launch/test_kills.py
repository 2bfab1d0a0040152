"""A run that is killed repeatedly, also while saving, ends with the same files as an uninterrupted one."""

import sys
import time

import numpy as np
import pytest
from forked_runs import ForkedRun, hostile_pickle
from small_runs import SHALLOW, TINY

from wildfern.ssl.tracking import read_records

CHANGES = [*TINY, "training.checkpoint_every=4", "training.precision=fp32"]
LOADER_THREADS = (0, 1, 3)
IN_SAVING = {  # the audit event, a pattern in its path, and the number of its occurrence
    "weights without a checksum": ("open", r"/\.unfinished_\d+/training\.safetensors", 1),
    "checksums not yet written": ("open", r"/\.unfinished_\d+/checkpoint\.json", 1),
    "not yet under its name": ("os.rename", r"/\.unfinished_\d", 1),
    "one too many": ("os.rename", r"/checkpoints/step_", 1),
    "the oldest half deleted": ("shutil.rmtree", r"/\.unfinished_step_", 1),
}


def kills(seed, outside, inside):
    """In random order: numbers of new metrics lines after which to kill the run, or events at which it kills itself."""
    draws = np.random.default_rng(seed)
    chosen = [int(lines) for lines in draws.integers(1, 10, outside)]
    chosen += [IN_SAVING[moment] for moment in inside]
    return [chosen[i] for i in draws.permutation(len(chosen))]


def steps_logged(run):
    records = read_records(run / "metrics.jsonl") if (run / "metrics.jsonl").exists() else []
    return records[-1]["step"] + 1 if records else 0


def killed(run, changes, resume, processes, kill):
    """Start or resume, and be killed."""
    saved = [int(path.name.removeprefix("step_")) for path in (run / "checkpoints").glob("step_*")]
    begin = max(saved, default=0)
    started = ForkedRun(run, changes, resume, processes, die_at=None if isinstance(kill, int) else kill)
    for _ in range(60_000):
        if not started.alive or (isinstance(kill, int) and resumed(started) and steps_logged(run) >= begin + kill):
            break
        time.sleep(0.001)
    started.kill()
    assert started.processes[0].exitcode == -9, started.output()
    assert "damaged" not in started.output()


def resumed(started):
    """Whether it is past the point where lines of metrics are dropped that a checkpoint does not cover."""
    return "run folder" in started.output()


def whole_run(run, changes, processes=1):
    started = ForkedRun(run, changes, processes=processes)
    assert started.wait() == 0, started.output()
    return run


def same_bytes(run, whole):
    for name in ("metrics.jsonl", "backbone.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
def test_ten_kills_and_any_number_of_loader_threads_give_identical_bytes(tmp_path):
    changes = [*CHANGES, "training.steps=200"]
    whole, run, half_saved = whole_run(tmp_path / "whole", changes), tmp_path / "run", 0
    plan = kills(seed=1, outside=5, inside=IN_SAVING)
    assert len(plan) == 10
    for number, kill in enumerate(plan):
        threads = f"training.loader_threads={LOADER_THREADS[number % 3]}"
        killed(run, [*changes, threads], number > 0, 1, kill)
        half_saved += bool(list((run / "checkpoints").glob(".unfinished_*")))
    assert half_saved >= 4
    assert steps_logged(run) < 200
    end = ForkedRun(run, changes, resume=True)
    assert end.wait() == 0, end.output()
    assert "resumed from step" in end.output()
    assert "damaged" not in end.output()
    same_bytes(run, whole)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_00000196", "step_00000200"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")
def test_two_killed_deepspeed_processes_give_identical_bytes(tmp_path):
    changes = [*CHANGES, SHALLOW, "training.steps=40"]
    whole, run = whole_run(tmp_path / "whole", changes, processes=2), tmp_path / "run"
    changes += ["training.checkpoint_form=sharded"]
    for number, kill in enumerate(kills(seed=2, outside=1, inside=["not yet under its name"])):
        killed(run, changes, number > 0, 2, kill)
    assert steps_logged(run) < 40
    end = ForkedRun(run, changes, resume=True, processes=2)
    assert end.wait() == 0, end.output()
    assert "resumed from step" in end.output()
    same_bytes(run, whole)
    hostile_pickle(run, tmp_path / "marker")
    refused = ForkedRun(run, changes, resume=True, processes=2)
    assert refused.wait() == 2, refused.output()
    assert "training_00000_of_00002.safetensors is damaged" in refused.output()
    assert not (tmp_path / "marker").exists()
