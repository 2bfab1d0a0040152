"""Distillation as a user runs it: messages about the teacher, checkpoints without it, exact resuming with the same weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from wildfern.launch import pretrain
from wildfern.launch.errors import RunError
from wildfern.recipes import RecipeErrors
from wildfern.ssl.models import Backbone
from wildfern.ssl.training.whole_state import FILE

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16], "stem_width": 16}
RECIPE = [
    *["data={source: digits}", "views={name: simclr, size: 12}", "evaluation.on=[]", "training.threads=1"],
    "model={backbone: resnet18, stem: cifar, arguments: {layers: [1, 1, 1, 0], channels: [8, 8, 8, 8], stem_width: 16}}",
    "method={name: distillation, teacher: resnet18, teacher_arguments: {stem: cifar, layers: [1, 1, 1, 1], "
    "channels: [8, 8, 8, 16], stem_width: 16}, projection_hidden: 8}",
    *["training.steps=4", "training.batch_size=8", "training.checkpoint_every=2", "training.keep_checkpoints=2"],
    *["training.device=cpu", "training.log_every=1"],
]


def teacher(path, seed):
    torch.manual_seed(seed)
    save_file(Backbone("resnet18", stem="cifar", **SMALL).network.state_dict(), path)
    return f"method.teacher_weights={path}"


def state(run, step):
    return load_file(next((run / "checkpoints").glob(f"*{step}")) / FILE)


def test_resumes_exactly_with_the_same_teacher_only(tmp_path, capsys):
    weights = teacher(tmp_path / "teacher.safetensors", 0)
    whole = pretrain("quickstart", [*RECIPE, weights], run=tmp_path / "whole")
    assert "frozen teacher resnet18: " in " ".join(capsys.readouterr().out.split())
    final = state(whole, 4)
    assert not [name for name in final if name.startswith("teacher/")]
    assert final["frozen/teacher/sha256"].shape == (32,)

    halted = tmp_path / "halted"
    pretrain("quickstart", [*RECIPE, weights, "training.steps=2", "schedule.length=4"], run=halted)
    more = [*RECIPE, weights, "schedule.length=4"]
    teacher(tmp_path / "teacher.safetensors", 1)
    with pytest.raises(RunError, match="weights of the frozen teacher have changed since the run was started"):
        pretrain("quickstart", more, run=halted, resume=True)
    teacher(tmp_path / "teacher.safetensors", 0)
    pretrain("quickstart", more, run=halted, resume=True)
    for name, value in state(halted, 4).items():
        torch.testing.assert_close(value, final[name], rtol=0, atol=0)


def test_weights_of_the_teacher_are_needed_and_faults_name_its_keys(tmp_path):
    with pytest.raises(RecipeErrors, match="teacher_weights"):
        pretrain("quickstart", RECIPE, run=tmp_path / "run")
    with pytest.raises(RunError, match=r"the teacher resnet18: method\.teacher_weights: there is no file or folder"):
        pretrain("quickstart", [*RECIPE, "method.teacher_weights=missing.pth"], run=tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["method.teacher_mean=[0.5]", "method.teacher_std=[0.5]"], "one number for each of the 3 channels"),
        (["method.teacher_mean=[0.5, 0.5, 0.5]", "method.teacher_std=[0, 1, 1]"], "method.teacher_std numbers above 0"),
        (["method.teacher_mean=[0.5, 0.5, 0.5]"], "or neither"),
        (
            [
                *["method.teacher=vit_tiny_patch16_224", "method.teacher_arguments=null"],
            ],
            r"the teacher vit_tiny_patch16_224 does not take views of 12 px: .*method\.teacher_arguments\.img_size",
        ),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(changes, message, tmp_path):
    with pytest.raises(RunError, match=message):
        pretrain("quickstart", [*RECIPE, "method.teacher_weights=random", *changes], run=tmp_path / "run")
