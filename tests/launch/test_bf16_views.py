"""Training in bf16 gets its views in bfloat16 and writes the same files as with views in float32."""

import pytest
import torch
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.ssl.augmentation import Views

BF16 = [*TINY, "model.stem=small", "training.precision=bf16", "training.steps=3", "training.checkpoint_every=3"]


@pytest.fixture
def types(monkeypatch):
    """Collects the dtypes of views."""
    seen = []
    forward = Views.forward

    def watched(self, batch):
        made = forward(self, batch)
        seen.append(made[0].dtype)
        return made

    monkeypatch.setattr(Views, "forward", watched)
    return seen


def test_runs_are_byte_identical(types, tmp_path, monkeypatch):
    rounded = pretrain("quickstart", BF16, run=tmp_path / "rounded")
    assert types == [torch.float32] + [torch.bfloat16] * 3  # views.png first
    monkeypatch.setattr("wildfern.launch.assembly.input_dtype", lambda *_: torch.float32)
    types.clear()
    whole = pretrain("quickstart", BF16, run=tmp_path / "whole")
    assert types == [torch.float32] * 4
    for file in ("metrics.jsonl", "backbone.safetensors", "views.png"):
        assert (rounded / file).read_bytes() == (whole / file).read_bytes(), file


def test_training_in_float32_gets_views_in_float32(types, tmp_path):
    pretrain("quickstart", [*TINY, "training.precision=fp32", "training.steps=1"], run=tmp_path / "run")
    assert types == [torch.float32] * 2
