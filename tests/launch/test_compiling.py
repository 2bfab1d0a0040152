"""`training.compile`: equal training and names of weights, under both engines, and the error without a compiler."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from forked_runs import ForkedRun
from safetensors.torch import load_file
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.tracking import read_records

TRAINING = ["training.precision=fp32", "training.checkpoint_every=2"]
TRAINING += ["optimizer={name: sgd, learning_rate: 2.0e-3, weight_decay: 1.0e-4}"]
RESNET = [*TINY, "model.arguments={layers: [1, 1, 0, 0]}", *TRAINING, "method.temperature=0.5"]
# A momentum method: its teacher is compiled too, and saved in checkpoints. On a network of few operations to compile.
TEACHER = [change for change in TINY if not change.startswith(("model.", "method."))]
TEACHER += ["model={backbone: vit_tiny_patch16_224, arguments: {img_size: 32, patch_size: 8, depth: 1, embed_dim: 48}}"]
TEACHER += [*TRAINING, "method={name: cacr_momentum, projection_hidden: 16, projection_size: 8}"]


def losses(run):
    return [record["loss"] for record in read_records(run / "metrics.jsonl")]


def weights(backbone):
    return torch.cat([p.detach().flatten() for p in backbone.parameters()])


def trained(run, changes, resume=False, processes=1):
    """In separate processes, independent of what other tests imported, patched or compiled."""
    started = ForkedRun(run, changes, resume, processes)
    assert started.wait(600) == 0, started.output()


def same_training(run, plain):
    """Losses and weights are equal up to rounding (which so small a network amplifies), and names exactly."""
    assert losses(run) == pytest.approx(losses(plain), rel=3e-3)
    start, end, expected = (
        weights(net)
        for net in (RunFolder(plain).backbone(trained=False), RunFolder(run).backbone(), RunFolder(plain).backbone())
    )
    assert (end - expected).norm() < 5e-2 * (expected - start).norm()
    names = [load_file(folder / "backbone.safetensors").keys() for folder in (run, plain)]
    assert names[0] == names[1]


@pytest.mark.slow
def test_compiled_training_is_equal_and_can_be_switched_on_resume(tmp_path):
    changes = [*TEACHER, "training.steps=4"]
    plain, compiled = pretrain("quickstart", changes, run=tmp_path / "plain"), tmp_path / "compiled"
    trained(compiled, [*changes, "training.compile=true"])
    same_training(compiled, plain)
    for run, switch in ((compiled, "false"), (plain, "true")):
        other = tmp_path / f"then-{switch}"
        shutil.copytree(run, other)
        shutil.rmtree(other / "checkpoints" / "step_00000004")
        trained(other, [*changes, f"training.compile={switch}"], resume=True)
        same_training(other, plain)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")
@pytest.mark.parametrize(("stage", "processes", "changes"), [(1, 2, RESNET), (3, 1, TEACHER)], ids=["1-2", "3-1"])
def test_compiled_training_is_the_same_under_deepspeed(stage, processes, changes, tmp_path):
    changes = [*changes, "training.steps=3"]
    plain = pretrain("quickstart", changes, run=tmp_path / "plain")
    changes += ["training.compile=true", f"engine={{name: deepspeed, zero_stage: {stage}}}"]
    trained(tmp_path / "compiled", changes, processes=processes)
    same_training(tmp_path / "compiled", plain)


def test_without_a_compiler_there_is_one_error_at_the_start(tmp_path):
    command = [sys.executable, "-m", "wildfern.launch.cli", "pretrain", "quickstart", *RESNET, "training.compile=true"]
    environment = {**os.environ, "CXX": str(tmp_path / "nowhere"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "training.compile" in done.stderr
    assert "g++" in done.stderr
    assert "Traceback" not in done.stderr
