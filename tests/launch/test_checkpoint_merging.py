"""`wildfern checkpoint merge`: the state of a sharded checkpoint in one file."""

import re

import pytest
import torch
from safetensors.torch import load_file
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.checkpoint_merging import merge_checkpoint
from wildfern.launch.errors import RunError

CHANGES = [*TINY, "training.steps=4", "training.checkpoint_every=2", "training.precision=fp32"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run with whole and with sharded checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        pretrain("quickstart", [*CHANGES, f"training.checkpoint_form={form}"], run=folder / form)
        for form in ("whole", "sharded")
    ]


def test_the_merged_file_is_that_of_a_whole_checkpoint(runs, tmp_path):
    whole, sharded = runs
    newest = sharded / "checkpoints" / "step_00000004"
    assert sorted(path.name for path in newest.iterdir()) == ["checkpoint.json", "training_00000_of_00001.safetensors"]
    expected = load_file(whole / "checkpoints" / "step_00000004" / "training.safetensors")
    for run in (sharded, newest):
        checkpoint, tensors, size = merge_checkpoint(run, tmp_path / "state.safetensors")
        assert (checkpoint, tensors) == (newest, len(expected))
        assert size == (tmp_path / "state.safetensors").stat().st_size
        found = load_file(tmp_path / "state.safetensors")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    again = pretrain("quickstart", [*CHANGES, f"model.weights={tmp_path}/state.safetensors"], run=tmp_path / "again")
    assert (again / "backbone.safetensors").is_file()


def test_both_forms_leave_the_same_run(runs):
    whole, sharded = runs
    for name in ("metrics.jsonl", "backbone.safetensors"):
        assert (whole / name).read_bytes() == (sharded / name).read_bytes()


def test_what_cannot_be_merged_is_said(runs, tmp_path):
    with pytest.raises(RunError, match="neither a checkpoint"):
        merge_checkpoint(tmp_path, tmp_path / "state.safetensors")
    with pytest.raises(RunError, match=re.escape("cannot write /dev/full: No space left on device")):
        merge_checkpoint(runs[1], "/dev/full")
    with pytest.raises(RunError, match="it is a folder"):
        merge_checkpoint(runs[1], tmp_path)
