"""Evaluation by training on images with masks: of a folder, with any networks, and of a run that segments."""

import pytest
from masked_squares import square_image
from PIL import Image

from wildfern.launch import evaluate, pretrain

TINY = [
    "data.0.size=48",
    "views.size=32",
    "views.crop_pixels=[32, 32]",
    "model.arguments={in_chans: 4, widths: [4, 8]}",
    "method.contrast_width=4",
    "method.discriminator_width=4",
    "training.steps=1",
    "training.batch_size=4",
    "training.device=cpu",
    "training.threads=1",
]


@pytest.fixture
def folder(tmp_path):
    """Four train images and three test images with masks."""
    for split, items in (("train", range(4)), ("test", range(10, 13))):
        for name in ("images", "masks"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
        for item in items:
            image = square_image(item, (40, 48))
            Image.fromarray(image.pixels).save(tmp_path / "data" / split / "images" / f"{item}.png")
            Image.fromarray(image.mask).save(tmp_path / "data" / split / "masks" / f"{item}.png")
    return f"masks:{tmp_path / 'data'}"


def test_networks_are_evaluated_on_a_folder_of_images_with_masks(folder):
    probe = {"name": "segmentation_probe", "layers": 4, "steps": 30, "batch_size": 4, "learning_rate": 0.1}
    tuned = {"name": "segmentation_finetune", "steps": 3, "batch_size": 2, "decoder_width": 8, "shots": 2}
    names = ["resnet18", ("vit_tiny_patch16_224", None)]
    result = evaluate(backbones=names, on=folder, protocols=[probe, tuned], size=32)
    rows = {(row["backbone"], row["protocol"].partition(" ")[0]): row for row in result.main_rows()}
    assert {backbone for backbone, _ in rows} == {"resnet18 random", "vit_tiny_patch16_224 random"}
    assert {protocol for _, protocol in rows} == {"segmentation_probe", "segmentation_finetune"}
    assert {(row["metric"], row["n"]) for row in rows.values()} == {("dice", 3)}
    assert rows["resnet18 random", "segmentation_probe"]["value"] > 0.4
    names = {row["protocol"] for row in result.rows}
    assert any(name.startswith("segmentation_probe (shots=null, layers=4, steps=30") for name in names)
    assert any(name.startswith("segmentation_finetune (shots=2, decoder_width=8, steps=3") for name in names)


def test_a_run_that_segments_is_compared_with_its_network_at_random_weights(folder, tmp_path):
    run = pretrain("freecos_quick", TINY, run=tmp_path / "run")
    probe = {"name": "segmentation_probe", "layers": 2, "steps": 3, "batch_size": 2}
    tuned = {"name": "segmentation_finetune", "steps": 2, "batch_size": 2, "shots": 1, "seeds": 2}
    result = evaluate(run, folder, ["segmentation", probe, tuned])
    rows = result.main_rows()
    assert len(rows) == 6
    assert {(row["backbone"], row["metric"], row["n"]) for row in rows} == {
        (name, "dice", 3) for name in ("random", "pretrained")
    }
    details = [row["detail"] for row in rows]
    assert not any("new decoder" in detail for detail in details)
    assert "segmentation_finetune (shots=1" in (run / "report.html").read_text()
