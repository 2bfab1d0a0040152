"""Fourier domain adaptation, PixMix and intensity orders, from the recipe to the views."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import TINY

from wildfern.generators import make_stream
from wildfern.launch import evaluate, pretrain
from wildfern.launch.builders import build_views, loop_config, open_mixture, with_precision
from wildfern.launch.components import read_recipe
from wildfern.launch.estimate import estimate
from wildfern.launch.exporting import export_backbone
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.views_image import CELL, GAP, MARGIN, shown
from wildfern.recipes import RecipeErrors
from wildfern.ssl.augmentation import pixmix
from wildfern.ssl.augmentation.local_intensity_order import LocalIntensityOrder
from wildfern.ssl.augmentation.pixmix import draw_pixmix
from wildfern.ssl.data import open_source
from wildfern.ssl.evaluation.preprocessing import resize_center_crop
from wildfern.ssl.training import BatchReader

ORDERS = ["views.local_intensity_order=true", "model.arguments.in_chans=4"]
MIXED = [
    "views.fourier_adaptation={data: [{source: 'folder:photographs', weight: 2}, {source: spectrum, size: 16}]}",
    "views.pixmix={data: {source: spectrum, size: 32}, probability: 0.5, rounds: 2}",
]


@pytest.fixture(autouse=True)
def photographs(tmp_path, monkeypatch):
    """A folder with images of several sizes, one of them broken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{i}.png")
    whole = (tmp_path / "photographs" / "4.png").read_bytes()
    (tmp_path / "photographs" / "4.png").write_bytes(whole[: len(whole) // 2])


def test_a_recipe_is_written_as_it_was_read(tmp_path):
    recipe = read_recipe("quickstart", [*TINY, *MIXED, *ORDERS])
    (tmp_path / "again.yaml").write_text(recipe.as_yaml())
    assert read_recipe(tmp_path / "again.yaml") == recipe
    written = recipe.as_dict()["views"]
    assert [entry["source"] for entry in written["fourier_adaptation"]["data"]] == ["folder:photographs", "spectrum"]
    assert written["pixmix"]["data"][0]["size"] == 32
    assert (written["pixmix"]["severity"], written["local_intensity_order"]) == (3.0, True)


def test_the_example_of_the_documentation_is_a_recipe(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    (example,) = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "pixmix" in block]
    (tmp_path / "example.yaml").write_text(f"extends: quickstart\n{example}")
    recipe = read_recipe(tmp_path / "example.yaml", ["views.fourier_adaptation.data='folder:photographs'"])
    defaults = read_recipe("quickstart", ["views.pixmix.data=digits", "views.fourier_adaptation.data=digits"])
    for settings in ("fourier_adaptation", "pixmix"):
        written, default = (r.as_dict()["views"][settings] for r in (recipe, defaults))
        assert {**written, "data": None} == {**default, "data": None}


@pytest.mark.parametrize("name", ["simclr", "byol", "mocov3", "swav", "dino", "multicrop"])
def test_every_preset_takes_them(name):
    recipe = read_recipe("dino_ifs_vit_small", [f"views.name={name}", "views.size=224", *MIXED, *ORDERS])
    views = build_views(recipe)
    assert views.channels == 4
    assert [len(chain) for chain in views.extra] == [2] * len(views.shape)


def test_all_errors_are_reported_together():
    with pytest.raises(RecipeErrors) as caught:
        read_recipe(
            "quickstart",
            [
                "views.pixmix={data: dead_leafs, severity: 11, probability: 2}",
                "views.fourier_adaptation={data: {source: dead_leaves, sice: 32}, ratio: 0.7, blur_kernel: 4, strength: 1}",
                "views.local_intensity_order=1",
            ],
        )
    text = str(caught.value)
    for words in (
        "views.pixmix.data.source: unknown source 'dead_leafs'; did you mean dead_leaves?",
        "views.pixmix.severity: must be less than or equal to 10, got 11",
        "views.pixmix.probability: must be less than or equal to 1, got 2",
        "views.fourier_adaptation.data.sice: unknown key; did you mean views.fourier_adaptation.data.size?",
        "views.fourier_adaptation.ratio: must be less than or equal to 0.5, got 0.7",
        "views.fourier_adaptation.blur_kernel: must be odd, got 4",
        "views.fourier_adaptation.strength: unknown key",
        "views.local_intensity_order: must be true or false, got 1",
    ):
        assert words in text, (words, text)
    assert len(caught.value.problems) == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            ["views.local_intensity_order=true"],
            "model.arguments.in_chans: must be 4, the number of channels that views.local_intensity_order makes",
        ),
        (["model.arguments.in_chans=4"], "model.arguments.in_chans: must be 3, the channels of a view; got 4"),
        (
            ["views.local_intensity_order=true", "model.backbone=small_alexnet", "model.arguments={}"],
            "model.backbone: small_alexnet takes three channels",
        ),
        (["views.pixmix.data='folder:nowhere'"], "views.pixmix.data.source: there is no nowhere"),
        (
            ["views.fourier_adaptation={data: spectrum, blur_kernel: 99}"],
            "views.fourier_adaptation: fourier_adaptation: a blur_kernel of 99 px is too large for views of 48 px",
        ),
        (["views.pixmix={}"], "views.pixmix.data: is missing"),
    ],
)
def test_one_clear_message(changes, words):
    with pytest.raises(RecipeErrors) as caught:
        read_recipe("quickstart", changes)
    (problem,) = caught.value.problems
    assert words in str(problem)


def test_two_ranks_read_the_batch_of_one():
    recipe = read_recipe("quickstart", [*TINY, *MIXED, "views.extra=[{operation: RandomErasing, p: 0.5}]"])
    mixture, config = open_mixture(recipe), loop_config(recipe)

    def seen(rank, world_size):
        views = build_views(recipe)
        reader = BatchReader(
            mixture,
            views,
            seed=config.seed,
            batch_size=config.batch_size,
            accumulation=config.accumulation,
            rank=rank,
            world_size=world_size,
        )
        return reader.batch(reader(3)).views[0]

    whole = seen(0, 1)
    assert whole.shape == (2, 8, 3, 32, 32)
    torch.testing.assert_close(torch.cat([seen(0, 2), seen(1, 2)], dim=1), whole, rtol=0, atol=1e-4)


def test_the_mixing_set_is_the_stream_that_the_recipe_names():
    changes = ["crop_scale=[1, 1]", "crop_ratio=[1, 1]", "flip=0", "jitter=0", "gray=0", "blur=0"]
    plain = read_recipe("quickstart", [*TINY, *(f"views.{change}" for change in changes)])
    mixed = read_recipe(
        "quickstart",
        [*TINY, *(f"views.{change}" for change in changes), "views.pixmix.data={source: spectrum, size: 32}"],
    )
    before, after = (build_views(recipe) for recipe in (plain, mixed))
    x = open_mixture(plain).read(np.arange(8)).pixels
    before, after = ((v(v.prepare(x, 0, 2, np.arange(8)))[0][1] * v.std + v.mean).clamp(0, 1) for v in (before, after))
    table = draw_pixmix(0, 2, np.arange(8), 1)
    mixing = torch.from_numpy(make_stream("spectrum", size=32).batch(table.mixing).images).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(after, pixmix(before, mixing, table), rtol=0, atol=1e-4)


def test_a_run_resumes_exactly_and_lists_broken_second_images(tmp_path):
    changes = [*TINY, *MIXED, *ORDERS, "training.steps=4", "training.checkpoint_every=2", "training.keep_checkpoints=9"]
    whole = pretrain("quickstart", changes, run=tmp_path / "whole")
    skipped = [json.loads(line)["file"] for line in (whole / "skipped.jsonl").open()]
    assert [name.split("/")[-1] for name in skipped] == ["4.png"]
    part = pretrain("quickstart", [*changes, "training.loader_threads=2"], run=tmp_path / "part")
    assert (part / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    for file in (part / "checkpoints" / "step_00000004").iterdir():
        file.unlink()
    (part / "checkpoints" / "step_00000004").rmdir()
    (part / "backbone.safetensors").unlink()
    pretrain(part / "recipe.yaml", run=part, resume=True)
    for name in ("metrics.jsonl", "backbone.safetensors", "views.png"):
        assert (part / name).read_bytes() == (whole / name).read_bytes()
    assert RunFolder(whole).recipe() == with_precision(read_recipe("quickstart", changes), torch.device("cpu"))


def test_views_png_shows_the_four_channels_that_the_model_sees(tmp_path):
    run = pretrain("quickstart", [*TINY, *MIXED, *ORDERS, "training.steps=1"], run=tmp_path / "run")
    recipe = read_recipe(run / "recipe.yaml")
    views, images = build_views(recipe), open_mixture(recipe).read(np.arange(8)).pixels
    seen = views(views.prepare(images, 0, 0, np.arange(8)))[0]
    assert seen.shape == (2, 8, 4, 32, 32)
    sheet = np.asarray(Image.open(run / "views.png"))
    for view in range(2):
        for row in range(8):
            top, left = MARGIN + row * (CELL + GAP), GAP + (1 + view) * (CELL + GAP)
            cell = sheet[top : top + CELL, left : left + CELL]
            codes = seen[view, row]
            for channel, (down, right) in enumerate([(0, 0), (0, 64), (64, 0), (64, 64)]):
                quarter = cell[down : down + 64 : 2, right : right + 64 : 2, 0].astype(float) / 255
                expected = (codes[channel] - codes.min()) / (codes.max() - codes.min())
                np.testing.assert_allclose(quarter, expected, atol=0.51 / 255 + 1e-6)
    photograph = torch.rand(2, 3, 8, 8)
    plain = build_views(read_recipe("quickstart", TINY))
    colors = shown((photograph - plain.mean) / plain.std, plain)
    np.testing.assert_array_equal(colors, (photograph.permute(0, 2, 3, 1) * 255).round().byte())


def test_an_estimate_counts_four_channels():
    three, four = (estimate(read_recipe("quickstart", [*TINY, *changes]), 1).footprint for changes in ([], ORDERS))
    assert four.parameters - three.parameters == 64 * 7 * 7  # of the first convolution
    assert four.views * 3 == three.views * 4


def test_plain_images_are_evaluated_as_the_backbone_was_trained(tmp_path, monkeypatch):
    run = pretrain("quickstart", [*TINY, *ORDERS, "model.stem=small", "training.steps=1"], run=tmp_path / "run")
    fed = []
    build = RunFolder.backbone

    def watched(self, trained=True):
        backbone = build(self, trained)
        backbone.register_forward_pre_hook(lambda module, inputs: fed.append(inputs[0][:2].clone()))
        return backbone

    monkeypatch.setattr(RunFolder, "backbone", watched)
    rows = evaluate(run, on=["digits"], protocols=["knn"]).main_rows()
    assert [row["backbone"] for row in rows] == ["random", "pretrained"]
    plain = resize_center_crop(open_source("digits").read(np.arange(2)).pixels, 32)
    torch.testing.assert_close(fed[0], LocalIntensityOrder(standardize=True)(plain))

    code = "\n".join(line[4:] for line in export_backbone(run, "timm").splitlines() if line.startswith("    "))
    names: dict = {}
    exec(code, names)
    x = torch.rand(2, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(names["model"].eval()(x), build(RunFolder(run))(x))
