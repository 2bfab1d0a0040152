"""`wildfern checkpoint merge`: the state of a sharded checkpoint in one file."""

import re
import shutil

import pytest
import torch
from safetensors.torch import load_file
from small_runs import TINY

from wildfern.launch import checkpoint_merging, pretrain
from wildfern.launch.backbones import named_backbone
from wildfern.launch.checkpoint_merging import merge_checkpoint, write_newest_backbone
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.training.checksums import check

CHANGES = [*TINY, "training.steps=4", "training.checkpoint_every=2", "training.precision=fp32"]

DINO = "method={name: dino, prototypes: 16, head_hidden: 16, head_bottleneck: 8}"


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


def test_a_resumed_run_keeps_the_form_of_its_checkpoints_unless_another_is_given(runs, tmp_path):
    run = shutil.copytree(runs[1], tmp_path / "run")
    for steps, form, files in (
        (5, [], ["training_00000_of_00001.safetensors"]),
        (6, ["training.checkpoint_form=whole"], ["training.safetensors"]),
        (7, [], ["training.safetensors"]),
    ):
        pretrain("quickstart", [*CHANGES, *form, f"training.steps={steps}"], run=run, resume=True)
        newest = run / "checkpoints" / f"step_{steps:08d}"
        assert sorted(path.name for path in newest.iterdir()) == ["checkpoint.json", *files]


def test_a_merged_state_is_read_as_weights_or_says_what_to_give_instead(runs, tmp_path):
    file = tmp_path / "state.safetensors"
    merge_checkpoint(runs[1], file)
    model = read_recipe("quickstart", CHANGES).model
    backbone = named_backbone("resnet18", file, stem=model.stem, **model.arguments)
    expected = load_file(runs[1] / "backbone.safetensors")
    found = backbone.network.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(
        ValueError, match=r"not fit resnet18 \(under method/backbone\.network\): .*bias is \[8\] in the file"
    ) as error:
        named_backbone("resnet18", file)
    assert "it is the state of a run: give the run folder to the command in place of a network" in str(error.value)


def test_both_forms_leave_the_same_run(runs):
    whole, sharded = runs
    for name in ("metrics.jsonl", "backbone.safetensors"):
        assert (whole / name).read_bytes() == (sharded / name).read_bytes()


@pytest.mark.parametrize("method", ["as in quickstart", "dino"])
def test_the_backbone_of_a_run_that_is_not_complete(method, runs, tmp_path):
    run = tmp_path / "run"
    if method == "dino":  # whose teacher is evaluated
        changes = [change for change in CHANGES if not change.startswith("method.")]
        pretrain("quickstart", [*changes, DINO, "training.checkpoint_form=sharded"], run=run)
    else:
        shutil.copytree(runs[1], run)
    expected = (run / "backbone.safetensors").read_bytes()
    (run / "backbone.safetensors").unlink()
    with pytest.raises(RunError, match=re.escape(f"wildfern checkpoint backbone {run} writes it")):
        RunFolder(run).backbone()
    checkpoint, tensors, size = write_newest_backbone(run)
    assert (run / "backbone.safetensors").read_bytes() == expected
    assert (checkpoint.name, size) == ("step_00000004", len(expected))
    assert tensors == len(load_file(run / "backbone.safetensors"))
    shutil.rmtree(checkpoint)
    write_newest_backbone(run)
    assert (run / "backbone.safetensors").read_bytes() != expected
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunError, match="neither a checkpoint"):
        write_newest_backbone(run)


def test_a_file_that_the_manifest_does_not_list_is_no_part_of_a_checkpoint(runs, tmp_path):
    whole, sharded = runs
    newest = shutil.copytree(sharded / "checkpoints" / "step_00000004", tmp_path / "checkpoint")
    shutil.copy(whole / "checkpoints" / "step_00000002" / "training.safetensors", newest)
    merge_checkpoint(newest, tmp_path / "state.safetensors")
    expected = load_file(whole / "checkpoints" / "step_00000004" / "training.safetensors")
    found = load_file(tmp_path / "state.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_what_cannot_be_merged_is_said(runs, tmp_path):
    with pytest.raises(RunError, match="neither a checkpoint"):
        merge_checkpoint(tmp_path, tmp_path / "state.safetensors")
    with pytest.raises(RunError, match=re.escape("cannot write /dev/full: No space left on device")):
        merge_checkpoint(runs[1], "/dev/full")
    with pytest.raises(RunError, match="it is a folder"):
        merge_checkpoint(runs[1], tmp_path)


def test_a_damaged_checkpoint_leaves_no_file_and_names_another_one(runs, tmp_path):
    run, out = shutil.copytree(runs[1], tmp_path / "run"), tmp_path / "out" / "state.safetensors"
    newest, before = (run / "checkpoints" / f"step_{step:08d}" for step in (4, 2))
    part = newest / "training_00000_of_00001.safetensors"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(RunError, match=re.escape("differs from what was written (SHA-256). To merge")) as caught:
        merge_checkpoint(run, out)
    assert str(before) in str(caught.value)
    shutil.copy(before / part.name, part)
    with pytest.raises(RunError, match="damaged"):
        merge_checkpoint(run, out)
    assert list(out.parent.iterdir()) == []
    assert merge_checkpoint(before, out)[0] == before


def test_a_run_may_delete_the_checkpoint_meanwhile(runs, tmp_path, monkeypatch):
    run, out = shutil.copytree(runs[1], tmp_path / "run"), tmp_path / "state.safetensors"
    newest, newer = (run / "checkpoints" / f"step_{step:08d}" for step in (4, 6))

    def deleted_meanwhile(folder):
        found = check(folder)
        if newest.exists():
            shutil.copytree(newest, newer)
            shutil.rmtree(newest)
        return found

    monkeypatch.setattr(checkpoint_merging, "check", deleted_meanwhile)
    assert merge_checkpoint(run, out)[0] == newer
    newer.rename(newest)
    monkeypatch.setattr(checkpoint_merging, "check", lambda folder: shutil.rmtree(folder))
    with pytest.raises(RunError, match="was deleted meanwhile"):
        merge_checkpoint(newest, tmp_path / "other.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "state.safetensors"]
