"""Methods that read labels, masks, a queue or addressed random numbers, trained through `pretrain`, resume exactly."""

import shutil
from pathlib import Path

import pytest
from method_cases import PLUGINS
from safetensors.torch import load_file
from small_runs import TINY

from wildfern.launch import evaluate, pretrain
from wildfern.launch.errors import RunError
from wildfern.ssl.tracking import read_records

COMMON = [c for c in TINY if not c.startswith(("data.", "method.", "model."))]
IFS = ["data.size=32", "data.points=200"]
RESNET = "model.arguments={layers: [1, 1, 1, 1], channels: [8, 8, 8, 8]}"
VIT = "model={backbone: vit_tiny_patch16_224, arguments: {patch_size: 8, depth: 1, embed_dim: 24, num_heads: 2}}"
MAE = ["method={name: mae, decoder_width: 16, decoder_depth: 1, decoder_heads: 2}", VIT, "views.count=1", *IFS]
LABELS = [
    RESNET,
    "method={name: supervised, classes: 20}",
    "data={source: ifs_multi, size: 32, points: 200, classes: 20}",
]
QUEUE = [RESNET, "method={name: queue_contrast, length: 20}", *IFS]
MASKS = [RESNET, "method={name: toy_segmentation, channels: 8}", "data={source: lsystem, size: 32, background: plain}"]
CASES = {
    "mae": (MAE, []),
    "several labels": ([*LABELS, "data.background=false"], []),
    "queue": (QUEUE, ["queue_contrast.py"]),
    "masks": ([*MASKS, "views.count=1"], ["toy_segmentation.py"]),
}


def train(case, run, steps, resume=False):
    changes, files = CASES[case]
    changes = [*COMMON, *changes, f"training.steps={steps}", "training.checkpoint_every=3", "schedule.name=constant"]
    return pretrain("quickstart", changes, run=run, resume=resume, plugins=[str(PLUGINS / file) for file in files])


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_equals_an_uninterrupted_one(case, tmp_path):
    whole = train(case, tmp_path / "whole", 6)
    losses = [row["loss"] for row in read_records(whole / "metrics.jsonl")]
    assert len(set(losses)) == 6
    run = train(case, tmp_path / "run", 3)
    assert train(case, run, 6, resume=True) == run
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    ours, theirs = (load_file(r / "checkpoints/step_00000006/training.safetensors") for r in (run, whole))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    if case == "queue":
        assert ours["method/queue.next"] == 6 * 8 % 20


def test_the_backbone_of_a_plugins_run_is_evaluated_without_running_the_plugin(tmp_path):
    run = train("masks", tmp_path / "run", 1)
    copy = run / "plugins" / "toy_segmentation.py"
    copy.write_text("raise SystemExit('a plugin of a run folder was executed')\n")
    assert {row["protocol"] for row in evaluate(run, on=["digits"], protocols=["knn"]).rows} == {"knn"}


def test_a_source_without_masks_is_refused(tmp_path):
    changes = [*COMMON, *IFS, RESNET, "method={name: toy_segmentation, channels: 8}", "training.steps=2"]
    with pytest.raises(RunError, match=r"needs masks, but no source of `data` has any"):
        pretrain("quickstart", changes, run=tmp_path / "run", plugins=[str(PLUGINS / "toy_segmentation.py")])
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


def test_the_wrong_number_of_classes_is_an_error_of_the_recipe_not_of_torch(tmp_path):
    changes = [*COMMON, *LABELS, "data.classes=21", "data.background=false", "training.steps=2"]
    with pytest.raises(RunError, match=r"method\.classes is 20, but ifs_multi has 21 classes"):
        pretrain("quickstart", changes, run=Path(tmp_path / "run"))
    few = [*COMMON, "data=digits", "method={name: supervised, classes: 3}", "training.steps=2"]
    with pytest.raises(RunError, match=r"method\.classes is 3, but digits has 10 classes"):
        pretrain("quickstart", few, run=Path(tmp_path / "few"))
