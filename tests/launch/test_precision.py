"""`training.precision` auto: bf16 if the device has bf16 arithmetic, decided at the start of a run and kept on resume."""

import pytest
import torch
from small_runs import TINY

from wildfern.launch import builders, pretrain
from wildfern.launch.builders import with_precision
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.run_folder import RunFolder

CHANGES = [*TINY, "model.stem=small", "training.steps=2", "training.checkpoint_every=1"]
BF16, FP32 = (lambda device: True), (lambda device: False)


@pytest.mark.parametrize(("there", "precision"), [(BF16, "bf16"), (FP32, "fp32")])
def test_auto_is_bf16_if_the_device_has_it(there, precision, monkeypatch):
    monkeypatch.setattr(builders, "computes_in_bf16", there)
    recipe = read_recipe("quickstart")
    assert recipe.training.precision == "auto"
    assert with_precision(recipe, torch.device("cpu")).training.precision == precision
    assert with_precision(recipe, None).training.precision == "bf16"  # an estimate for a GPU
    asked = read_recipe("quickstart", ["training.precision=fp32"])
    assert with_precision(asked, None) == asked


def test_a_run_resumes_in_its_initial_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "computes_in_bf16", FP32)
    run = pretrain("quickstart", CHANGES, run=tmp_path / "run")
    assert RunFolder(run).recipe().training.precision == "fp32"
    monkeypatch.setattr(builders, "computes_in_bf16", BF16)
    pretrain("quickstart", [*CHANGES, "training.steps=3"], run=run, resume=True)
    assert RunFolder(run).recipe().training.precision == "fp32"
    with pytest.raises(RunError, match=r"training\.precision differ"):
        pretrain("quickstart", [*CHANGES, "training.steps=4", "training.precision=bf16"], run=run, resume=True)


def test_a_warning_says_that_emulated_bf16_is_slow(tmp_path, monkeypatch, capsys):
    from wildfern.launch import training_run

    for there, said in ((FP32, True), (BF16, False)):
        monkeypatch.setattr(training_run, "computes_in_bf16", there)
        pretrain("quickstart", [*CHANGES, "training.precision=bf16"], run=tmp_path / str(said))
        assert ("emulated on this CPU; fp32 or auto is many times faster" in capsys.readouterr().out) == said
