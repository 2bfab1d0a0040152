"""DeepSpeed with two processes on this machine: started by its launcher, as documented, or forked, which is faster."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked_runs import ForkedRun
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.tracking import read_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux"),
]
ARGUMENTS = [*TINY, "training.steps=6", "training.precision=fp32", "training.checkpoint_every=3"]
# Small steps, since so small a network multiplies rounding errors by ten with every large step.
ARGUMENTS += ["training.batch_size=16", "optimizer={name: sgd, learning_rate: 2.0e-3, weight_decay: 1.0e-4}"]
ARGUMENTS += ["method.temperature=0.5"]


def launch(processes, run, *extra, cwd):
    """Start the launcher in a new session, since killing only the launcher would leave its workers running."""
    launcher = Path(sys.executable).with_name("deepspeed")
    command = [str(launcher) if launcher.exists() else shutil.which("deepspeed")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command += ["--num_accelerators", str(processes), "--master_port", port, "--module", "wildfern.launch.pretrain"]
    command += ["--recipe", "quickstart", *extra, "--run", str(run)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
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


DINO = [argument for argument in ARGUMENTS if not argument.startswith(("method.", "views."))]
DINO += ["method={name: dino, prototypes: 16, head_hidden: 16, head_bottleneck: 8, freeze_last_layer: 0.4}"]
DINO += ["views={name: multicrop, size: 32, local_size: 32, local_count: 2, blur: [0.5, 0.1]}"]
# Without batch normalization over a few images, which also amplifies rounding.
VIT = [argument for argument in ARGUMENTS if not argument.startswith("model.")]
VIT += [
    "model.arguments={}",
    "model={backbone: vit_tiny_patch16_224, arguments: {img_size: 32, patch_size: 8, depth: 1, embed_dim: 48}}",
]
# DINO's teacher divides rounding errors by its temperature 0.04, and its loss is small once the center has moved.
CASES = {
    "zero1-accumulation": (1, [*VIT, "training.accumulation=2"], 1e-4),
    "zero2-dino": (2, DINO, 1e-3),
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_like_one(case, tmp_path):
    stage, changes, relative = CASES[case]
    run = tmp_path / "two"
    started = ForkedRun(run, [*changes, f"engine={{name: deepspeed, zero_stage: {stage}}}"], processes=2)
    assert started.wait() == 0, started.output()
    alone = pretrain("quickstart", changes, run=tmp_path / "one")
    ours, theirs = (read_records(folder / "metrics.jsonl") for folder in (run, alone))
    assert [r["step"] for r in ours] == [r["step"] for r in theirs] == list(range(6))
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=relative)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-2)
    start, end, expected = (
        torch.cat([p.flatten() for p in net.parameters()])
        for net in (RunFolder(alone).backbone(trained=False), RunFolder(run).backbone(), RunFolder(alone).backbone())
    )
    assert (end - expected).norm() < 1e-2 * (expected - start).norm()
    facts = json.loads((run / "checkpoints" / "step_00000006" / "checkpoint.json").read_text())
    assert (facts["world_size"], facts["zero_stage"]) == (2, stage)


def test_a_run_resumes_with_other_processes_stages_and_engines(tmp_path):
    changes = [*VIT, "training.checkpoint_every=2", "training.keep_checkpoints=3", "data.classes=4"]
    changes += ["evaluation.online_probe={learning_rate: 0.01}", "evaluation.online_knn={k: 3, images: 20}"]
    whole = pretrain("quickstart", changes, run=tmp_path / "whole")
    run = shutil.copytree(whole, tmp_path / "run")
    for step in (4, 6):
        shutil.rmtree(run / "checkpoints" / f"step_{step:08d}")
    sharded = ["engine={name: deepspeed, zero_stage: 3}", "training.checkpoint_form=sharded"]
    started = ForkedRun(run, [*changes, *sharded], resume=True, processes=2)
    assert started.wait() == 0, started.output()
    assert "resumed from step 2" in started.output()
    shutil.rmtree(run / "checkpoints" / "step_00000006")
    files = {path.name for path in (run / "checkpoints" / "step_00000004").iterdir()}
    assert files == {"checkpoint.json", *(f"training_0000{rank}_of_00002.safetensors" for rank in range(2))}
    pretrain("quickstart", changes, run=run, resume=True)  # from the checkpoint of two processes at stage 3
    ours, theirs = (read_records(folder / "metrics.jsonl") for folder in (run, whole))
    assert [r["step"] for r in ours] == list(range(6))
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)
        assert one["online_probe_accuracy"] == other["online_probe_accuracy"]
        assert one.get("online_knn_accuracy") == other.get("online_knn_accuracy")
    assert ["online_knn_accuracy" in row for row in ours] == [False] + [True] * 5  # the bank is empty in the first step


def test_the_launcher_needs_no_engine_in_the_recipe_and_resumes_exactly(tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    plugin = tmp_path / "extra.py"
    plugin.write_text("from wildfern.registry import register\n@register('schedule', 'extra')\ndef extra(steps): ...\n")
    code, output = launch(2, whole, *ARGUMENTS, "--plugin", str(plugin), cwd=tmp_path)
    assert code == 0, output
    assert (whole / "plugins" / "extra.py").read_bytes() == plugin.read_bytes()
    assert "deepspeed" in (whole / "recipe.yaml").read_text()
    assert json.loads((whole / "environment.json").read_text())["processes"] == 2
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints" / "step_00000006")
    resumed = ForkedRun(run, [*ARGUMENTS, f"plugins=[{plugin}]"], resume=True, processes=2)
    assert resumed.wait() == 0, resumed.output()
    assert "resumed from step 3" in resumed.output()
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_user_errors_end_all_processes_with_code_2(tmp_path):
    code, output = launch(2, tmp_path / "run", *ARGUMENTS, "training.batch_size=7", cwd=tmp_path)
    assert code == 2, output
    assert "does not divide" in output, output
    assert "Traceback" not in output
