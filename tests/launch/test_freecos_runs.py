"""FreeCOS with its discriminator, from a recipe: W ranks train like one at every ZeRO stage, and runs resume exactly."""

import shutil

import pytest
import torch
from forked_runs import ForkedRun
from safetensors.torch import load_file

from wildfern.launch import pretrain
from wildfern.launch.errors import RunError
from wildfern.ssl.tracking import read_records

CHANGES = [
    "data=[{source: lsystem, size: 64, preset: retina}, {source: retina}]",
    "views={name: simclr, count: 1, size: 32, crop_pixels: [32, 48], local_intensity_order: true, fourier_adaptation: "
    "{images: with_masks, targets: crops, probability: 1.0, noise: 0.02}}",
    "model={backbone: unet, arguments: {in_chans: 4, widths: [8, 12]}}",
    # At random weights few pixels are confident: with .51 every part of the loss acts from the first step.
    "method={name: freecos, discriminator_width: 4, contrast_width: 8, confident: 0.51, contrast_pixels: 50, negatives: 60}",
    "optimizer={name: sgd, learning_rate: 5.0e-3, weight_decay: 1.0e-4}",
    "schedule={name: polynomial}",
    *["training.steps=6", "training.batch_size=16", "training.precision=fp32", "training.checkpoint_every=3"],
    *["training.log_every=1", "training.threads=1", "training.device=cpu", "evaluation.on=[]"],
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return pretrain("quickstart", CHANGES, run=tmp_path_factory.mktemp("whole") / "run")


def test_every_part_of_the_loss_is_logged_and_acts(whole):
    records = read_records(whole / "metrics.jsonl")
    names = ("dice_loss", "cross_entropy", "dice", "adversarial_loss", "discriminator_loss", "contrast_loss")
    assert all(record[name] > 0 for record in records for name in names)
    assert records[-1]["dice_loss"] < records[0]["dice_loss"]


def test_a_resumed_run_has_the_same_bytes(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step_00000006")
    pretrain("quickstart", CHANGES, run=run, resume=True)
    for name in ("metrics.jsonl", "backbone.safetensors", "decoder.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_processes_train_like_one(stage, whole, tmp_path):
    run = tmp_path / "two"
    started = ForkedRun(run, [*CHANGES, f"engine={{name: deepspeed, zero_stage: {stage}}}"], processes=2)
    assert started.wait() == 0, started.output()
    ours, theirs = (read_records(folder / "metrics.jsonl") for folder in (run, whole))
    assert len(ours) == len(theirs) == 6
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert one["discriminator_loss"] == pytest.approx(other["discriminator_loss"], rel=1e-3)
        assert one["discriminator_accuracy"] == pytest.approx(other["discriminator_accuracy"], abs=1e-6)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-2)
    for file in ("backbone.safetensors", "decoder.safetensors"):
        found, expected = (load_file(folder / file) for folder in (run, whole))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert (found[name] - value).abs().max() <= 1e-3 * value.abs().max(), name
    # The discriminator, which its own optimizer moved.
    states = [load_file(whole / "checkpoints" / f"step_{step:08d}" / "training.safetensors") for step in (3, 6)]
    moved = [name for name in states[0] if name.startswith("method/discriminator.") and name.endswith("weight")]
    assert all(not torch.equal(states[0][name], states[1][name]) for name in moved)
    assert len(moved) == 5


def test_a_run_at_stage_3_is_continued_by_the_torch_engine(whole, tmp_path):
    run = tmp_path / "run"
    sharded = ["engine={name: deepspeed, zero_stage: 3}", "training.checkpoint_form=sharded"]
    started = ForkedRun(run, [*CHANGES, *sharded], processes=2)
    assert started.wait() == 0, started.output()
    shutil.rmtree(run / "checkpoints" / "step_00000006")
    pretrain("quickstart", CHANGES, run=run, resume=True)
    found, expected = (load_file(folder / "decoder.safetensors") for folder in (run, whole))
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-3 * value.abs().max(), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["data={source: retina}", "views.fourier_adaptation=null"],
            "freecos needs masks, but no source of `data` has any",
        ),
        (
            ["data={source: lsystem, size: 64}", "views.fourier_adaptation=null"],
            r"all of lsystem have: add a source without, for example folder:PATH of your images, or set method\.adversarial=0",
        ),
        (
            ["data={source: lsystem, size: 64}"],
            "views.fourier_adaptation adapts rendered images to others, but all sources",
        ),
        (["views.size=16", "views.crop_pixels=[16, 16]"], "freecos: this method needs views of at least 32 px, got 16"),
    ],
)
def test_what_is_missing_is_said_before_training(changes, message, tmp_path):
    with pytest.raises(RunError, match=message):
        pretrain("quickstart", [*CHANGES, *changes], run=tmp_path / "run")
