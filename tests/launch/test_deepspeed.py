"""The deepspeed launcher, as documented, with two processes on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import TINY

from wildfern.ssl.tracking import read_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux"),
]
ARGUMENTS = [*TINY, "training.steps=6", "training.precision=fp32", "training.checkpoint_every=3"]


def launch(processes, run, *extra, cwd):
    """Start the launcher in a session of its own: killing the launcher alone would leave its workers behind."""
    launcher = Path(sys.executable).with_name("deepspeed")
    command = [str(launcher) if launcher.exists() else shutil.which("deepspeed")]
    if torch.cuda.is_available():
        processes = min(processes, torch.cuda.device_count())
    command += ["--num_accelerators", str(processes), "--master_port", "29631", "--module", "wildfern.launch.pretrain"]
    command += ["--recipe", "quickstart", *ARGUMENTS, *extra, "--run", str(run)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


@pytest.mark.parametrize("stage", [1, 3])
def test_two_processes_train_like_one(stage, tmp_path):
    run = tmp_path / "two"
    code, output = launch(2, run, f"engine.zero_stage={stage}", "engine.name=deepspeed", cwd=tmp_path)
    assert code == 0, output
    alone = subprocess.run(
        [
            sys.executable,
            "-m",
            "wildfern.launch.cli",
            "pretrain",
            "quickstart",
            *ARGUMENTS,
            "--run",
            str(tmp_path / "one"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert alone.returncode == 0, alone.stderr
    ours, theirs = (read_records(tmp_path / name / "metrics.jsonl") for name in ("two", "one"))
    assert [r["step"] for r in ours] == [r["step"] for r in theirs] == list(range(6))
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-2)
    assert (run / "backbone.safetensors").is_file()
    assert json.loads((run / "checkpoints" / "step_00000006" / "checkpoint.json").read_text())["world_size"] == 2


def test_the_launcher_needs_no_engine_in_the_recipe_and_resumes(tmp_path):
    run = tmp_path / "run"
    code, output = launch(2, run, "training.steps=3", cwd=tmp_path)
    assert code == 0, output
    assert "engine" in (run / "recipe.yaml").read_text()
    code, output = launch(2, run, "--resume", cwd=tmp_path)
    assert code == 0, output
    assert "resumed from step 3" in output
    assert [r["step"] for r in read_records(run / "metrics.jsonl")] == list(range(6))


def test_errors_of_the_user_end_all_processes_with_code_2(tmp_path):
    code, output = launch(2, tmp_path / "run", "training.batch_size=7", cwd=tmp_path)
    assert code == 2, output
    assert "does not divide" in output
    assert "Traceback" not in output
