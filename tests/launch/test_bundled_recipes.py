"""Every bundled recipe loads, and trains for a few steps when made small."""

import re

import numpy as np
import pytest
from PIL import Image

from wildfern.launch import pretrain
from wildfern.launch.components import read_recipe
from wildfern.recipes import RecipeErrors, list_recipes, recipe_text
from wildfern.ssl.tracking import read_records

SMALL = ["training.steps=3", "training.batch_size=8", "training.log_every=1", "training.loader_threads=1"]
SMALL += ["evaluation.on=[]"]
SMALL_IFS = ["data.size=32", "data.points=500", "data.threads=1"]
SMALL_CIFAR = ["data.source=digits", "model.arguments={layers: [1, 1, 1, 1], channels: [8, 8, 8, 16], stem_width: 16}"]
SMALL_CIFAR += ["method.projection_hidden=64", "method.projection_size=32"]
SMALL_DINO = ["views.size=32", "views.local_size=16", "views.local_count=2", "method.prototypes=64"]
SMALL_DINO += ["method.head_hidden=32", "model.backbone=vit_tiny_patch16_224", "model.arguments.depth=1"]
SMALL_NETWORK = ["views.size=32", "model.backbone=resnet14t"]
NARROW = "model.arguments={layers: [1, 1, 1, 1], channels: [8, 8, 8, 16]}"
SMALL_HEAD = ["method.projection_hidden=64", "method.projection_size=32"]
SMALL_SEGMENTATION = ["data.0.size=48", "views.size=32", "views.crop_pixels=[32, 32]", "method.discriminator_width=4"]
SMALL_SEGMENTATION += ["model.arguments.widths=[4, 6]", "method.contrast_width=4"]
CHANGES = {
    "quickstart": [],
    "simclr_cifar10": ["data.source=digits", NARROW, *SMALL_HEAD],
    "simclr_ifs_resnet18": [*SMALL_IFS, NARROW, *SMALL_HEAD],
    "simclr_ifs_resnet50": [*SMALL_IFS, "views.size=32", "model.backbone=resnet14t", "method.projection_hidden=64"],
    "cacr_cifar10": ["data.source=digits"],
    "cacr_imagenet_resnet50": [
        *["data.source=folder:{images}", "views.size=48", "views.local_size=32", "views.local_count=2"],
        *["model.backbone=resnet14t", "method.projection_hidden=64", "engine.name=torch"],
    ],
    "cacr_queue_imagenet_resnet50": [
        *["data.source=folder:{images}", "views.size=32", "model.backbone=resnet14t", "method.projection_hidden=64"],
        "method.queue=32",
    ],
    "moco_v2_cifar10": [*SMALL_CIFAR, "method.queue_length=32"],
    "moco_v3_cifar10": SMALL_CIFAR,
    "moco_v3_ifs_vit_small": [
        *[*SMALL_IFS, "views.size=32", "model.arguments={patch_size: 8, depth: 1, embed_dim: 24, num_heads: 2}"],
        *["method.projection_hidden=64", "method.projection_size=32"],
    ],
    "byol_cifar10": [*SMALL_CIFAR, "method.predictor_hidden=64"],
    "simsiam_cifar10": [*SMALL_CIFAR, "method.predictor_hidden=16"],
    "nnclr_cifar10": [*SMALL_CIFAR, "method.predictor_hidden=64", "method.queue_length=32"],
    "dino_ifs_vit_small": [*SMALL_IFS, *SMALL_DINO],
    "dino_pass_vit_small": ["data.source=folder:{images}", *SMALL_DINO],
    "distillation_folder_resnet18": [
        *["data.source=folder:{images}", "views.size=32", "method.teacher=vit_tiny_patch16_224"],
        *["method.teacher_weights=random", "method.teacher_arguments.depth=1", "method.projection_hidden=16"],
        NARROW,
    ],
    "ibot_ifs_vit_small": [*SMALL_IFS, *SMALL_DINO],
    "dinov2_ifs_vit_small": [*SMALL_IFS, *SMALL_DINO, "method.patch_prototypes=64"],
    "mae_ifs_vit_small": [
        *[*SMALL_IFS, "views.size=32", "model.arguments={patch_size: 8, depth: 1, embed_dim: 24, num_heads: 2}"],
        *["method.decoder_width=16", "method.decoder_depth=1", "method.decoder_heads=2"],
    ],
    "swav_cifar10": ["data.source=digits", "method.prototypes=64", "method.queue=16", NARROW, *SMALL_HEAD],
    "barlow_twins_cifar10": ["data.source=digits", NARROW, *SMALL_HEAD],
    "vicreg_cifar10": ["data.source=digits", NARROW, *SMALL_HEAD],
    "lejepa_ifs_vit_small": [
        *[*SMALL_IFS, "views.size=32", "views.local_size=16", "views.local_count=2", "method.slices=16", *SMALL_HEAD],
        "model.arguments={img_size: 32, depth: 1, embed_dim: 24, num_heads: 2, dynamic_img_size: true}",
    ],
    "seer_folder_regnet_10b": [
        *["data.source=folder:{images}", "views.size=48", "views.local_size=32", "views.local_count=2"],
        *["model.arguments={depth: 8, w0: 16, wa: 16, wm: 2.2, group_size: 8}", "method.prototypes=64"],
        *["engine={name: torch}", *SMALL_HEAD],
    ],
    "seer_folder_regnety_2560": [
        *["data.source=folder:{images}", "views.size=48", "views.local_size=32", "views.local_count=2"],
        *["model.backbone=regnety_002", "method.prototypes=64", "engine.name=torch", *SMALL_HEAD],
    ],
    "simmim_ifs_vit_small": [
        *[*SMALL_IFS, "views.size=32", "method.mask_size=16"],
        "model.arguments={patch_size: 8, depth: 1, embed_dim: 24, num_heads: 2}",
    ],
    "ijepa_ifs_vit_small": [
        *[*SMALL_IFS, "views.size=32", "model.arguments={patch_size: 4, depth: 1, embed_dim: 24, num_heads: 2}"],
        *["method.predictor_width=16", "method.predictor_depth=1", "method.predictor_heads=2"],
    ],
    "denoising_autoencoder_cifar10": ["data.source=digits", "method.decoder_width=8", NARROW],
    "supervised_ifs_multi_resnet50": [
        *[*SMALL_IFS, "views.size=32", "model.backbone=resnet14t", "data.classes=30", "method.classes=30"],
    ],
    "fractaldb_resnet50": [*SMALL_IFS, *SMALL_NETWORK, "data.classes=4"],
    "one_fractal_vit_tiny": [
        *[
            "data.of.size=32",
            "data.of.points=500",
            "data.of.classes=4",
            "data.of.threads=1",
            "data.items=4",
            "views.size=32",
        ],
        "model.arguments={img_size: 32, patch_size: 8, depth: 1, embed_dim: 24, num_heads: 2}",
    ],
    "instance_identity_cifar10": ["data.source=digits", "method.projection_hidden=64", NARROW],
    "parameter_regression_spectrum_resnet18": ["data.size=32", "data.threads=1", "views.size=32", NARROW],
    "dino_texture_kml_vit_small": ["data.of.size=32", "data.of.threads=1", *SMALL_DINO],
    "freecos_quick": SMALL_SEGMENTATION,
    "freecos_xcad": ["data.1.source=folder:{images}", *SMALL_SEGMENTATION],
    "freecos_drive": ["data.1.source=folder:{images}", *SMALL_SEGMENTATION],
    "textured_lines_quick": [
        "data.size=48",
        "views.size=32",
        "views.crop_pixels=[32, 32]",
        "model.arguments.widths=[4, 6, 8]",
    ],
    "textured_lines_resnet18": [
        "data.size=48",
        "views.size=32",
        "views.crop_pixels=[32, 32]",
        NARROW,
        "method.decoder_width=8",
    ],
    "mix_folder_and_ifs": [
        "data.0.source=folder:{images}",
        "views.size=32",
        "data.1.size=32",
        "data.1.points=500",
        NARROW,
    ],
}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return folder


def test_every_recipe_has_a_small_run():
    assert set(list_recipes()) == set(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_runs_a_few_steps(name, images, tmp_path):
    changes = [change.replace("{images}", str(images)) for change in CHANGES[name]]
    run = pretrain(name, [*SMALL, *changes], run=tmp_path / "run")
    records = read_records(run / "metrics.jsonl")
    assert [r["step"] for r in records] == [0, 1, 2]
    assert all(np.isfinite(r["loss"]) for r in records)
    for file in (
        "recipe.yaml",
        "environment.json",
        "timings.jsonl",
        "views.png",
        "backbone.safetensors",
        "report.html",
    ):
        assert (run / file).is_file(), file
    assert read_recipe(run / "recipe.yaml").training.steps == 3


def test_the_first_line_of_each_is_a_description():
    assert [name for name in CHANGES if not re.match(r"# \w.{30}", recipe_text(name))] == []


RATES = {  # of the papers, at the batch size of the recipe; None: for batches of 256 images there is none
    "cacr_cifar10": (0.12, 0.06),
    "cacr_imagenet_resnet50": (0.3, 4.8),
    "cacr_queue_imagenet_resnet50": (0.03, 0.03),
    "dino_ifs_vit_small": (5e-4, 2e-3),
    "dino_texture_kml_vit_small": (5e-4, 8.75e-4),
    "fractaldb_resnet50": (0.1, 0.1),
    "instance_identity_cifar10": (0.06, 0.03),
    "one_fractal_vit_tiny": (1e-3, 1e-3),
    "parameter_regression_spectrum_resnet18": (1e-3, 1e-3),
    "dino_pass_vit_small": (5e-4, 2e-3),
    "dinov2_ifs_vit_small": (2e-3, 4e-3),
    "distillation_folder_resnet18": (1e-3, 1e-3),
    "ibot_ifs_vit_small": (5e-4, 2e-3),
    "ijepa_ifs_vit_small": (1.25e-4, 1e-3),
    "mae_ifs_vit_small": (1.5e-4, 6e-4),
    "mix_folder_and_ifs": (None, 1e-3),
    "barlow_twins_cifar10": (0.3, 0.6),
    "lejepa_ifs_vit_small": (2e-3, 2e-3),
    "seer_folder_regnet_10b": (0.05, 1.6),
    "seer_folder_regnety_2560": (0.3, 9.6),
    "swav_cifar10": (0.6, 1.2),
    "vicreg_cifar10": (0.3, 0.6),
    "byol_cifar10": (0.12, 0.24),
    "moco_v2_cifar10": (0.12, 0.24),
    "moco_v3_cifar10": (0.12, 0.24),
    "moco_v3_ifs_vit_small": (1.5e-4, 6e-4),
    "nnclr_cifar10": (0.12, 0.24),
    "simsiam_cifar10": (0.12, 0.24),
    "simclr_cifar10": (0.12, 0.24),
    "simclr_ifs_resnet18": (0.4, 0.8),
    "simclr_ifs_resnet50": (0.3, 1.2),
    "simmim_ifs_vit_small": (1e-4, 8e-4),
    "supervised_ifs_multi_resnet50": (0.1, 0.1),
}


@pytest.mark.parametrize("name", RATES)
def test_learning_rates_for_256_images_give_those_of_the_papers_exactly(name):
    recipe = read_recipe(name, data_here=False)
    assert (recipe.optimizer.base_learning_rate, recipe.optimizer_arguments["learning_rate"]) == RATES[name]


def test_a_smaller_batch_of_dino_needs_no_learning_rate():
    recipe = read_recipe("dino_ifs_vit_small", ["training.batch_size=32"], data_here=False)
    assert recipe.optimizer_arguments["learning_rate"] == 6.25e-5


def test_an_error_of_the_scaled_rate_names_the_key_that_was_stated():
    with pytest.raises(RecipeErrors) as caught:
        read_recipe("quickstart", ["optimizer.base_learning_rate=9e5", "training.batch_size=512"])
    key = "command line: optimizer.base_learning_rate"
    made = "makes learning_rate 1.8e+06 for batches of 512 images, which must be less than or equal to 1000000"
    assert str(caught.value).startswith(f"{key}: {made}")
