"""A run that was killed goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from small_runs import TINY

STEPS = 150
ARGUMENTS = [*TINY, f"training.steps={STEPS}", "training.checkpoint_every=5"]


def start(run, *extra, cwd):
    command = [
        sys.executable,
        "-m",
        "wildfern.launch.cli",
        "pretrain",
        "quickstart",
        *ARGUMENTS,
        "--run",
        str(run),
        *extra,
    ]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_checkpoint(run, process):
    for _ in range(1200):
        if list((run / "checkpoints").glob("step_*")):
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("no checkpoint within a minute")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    process = start(run, cwd=run.parent)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return run


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_metrics_and_weights_equal_those_of_a_run_left_alone(number, uninterrupted, tmp_path):
    run = tmp_path / "run"
    process = start(run, cwd=tmp_path)
    wait_for_checkpoint(run, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), output
    lines = len((run / "metrics.jsonl").read_text().splitlines())
    assert 5 <= lines < STEPS
    process = start(run, "--resume", cwd=tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "resumed from step" in output
    assert (run / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()
    assert (run / "backbone.safetensors").read_bytes() == (uninterrupted / "backbone.safetensors").read_bytes()


def test_loader_threads_change_nothing(uninterrupted, tmp_path):
    process = start(tmp_path / "run", "training.loader_threads=3", cwd=tmp_path)
    assert process.wait(300) == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()


def test_resume_without_a_checkpoint_starts_anew_and_says_so(tmp_path):
    process = start(tmp_path / "run", "--resume", "training.steps=2", cwd=tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "starting anew" in output
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_another_batch_size_is_refused(uninterrupted):
    process = start(uninterrupted, "--resume", "training.batch_size=16", cwd=uninterrupted.parent)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "batch_size" in output
    assert (
        json.loads((uninterrupted / "checkpoints" / f"step_{STEPS:08d}" / "checkpoint.json").read_text())["step"]
        == STEPS
    )
    assert os.path.exists(uninterrupted / "metrics.jsonl")
