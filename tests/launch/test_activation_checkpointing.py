"""`model.activation_checkpointing`: of the student alone, the same run, and networks that cannot."""

import pytest
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.builders import build_method
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError

ON = "model.activation_checkpointing=true"
DINO = "method={name: dino, prototypes: 16, head_hidden: 16, head_bottleneck: 8}"


def test_only_the_student_computes_activations_again():
    changes = [change for change in TINY if not change.startswith("method.")]
    method = build_method(read_recipe("quickstart", [*changes, DINO, ON]))
    [teacher] = method.teachers().values()
    assert method.backbone.recomputes
    assert method.backbone.network.grad_checkpointing
    assert not any(getattr(module, "grad_checkpointing", False) for module in teacher.modules())
    assert not build_method(read_recipe("quickstart", TINY)).backbone.recomputes


def test_a_run_gives_the_same_numbers_with_it(tmp_path):
    few = [*TINY, "training.steps=2", "training.log_every=1", "training.precision=fp32", "evaluation.on=[]"]
    plain, again = (
        pretrain("quickstart", [*few, f"model.activation_checkpointing={on}"], run=tmp_path / on)
        for on in ("false", "true")
    )
    for name in ("metrics.jsonl", "backbone.safetensors"):
        assert (again / name).read_bytes() == (plain / name).read_bytes()


def test_a_run_of_a_network_that_cannot_is_refused(tmp_path):
    changes = [change for change in TINY if not change.startswith("model.")]
    with pytest.raises(RunError, match="torchvision/resnet18 cannot compute its activations again"):
        pretrain("quickstart", [*changes, "model.backbone=torchvision/resnet18", ON], run=tmp_path / "run")
