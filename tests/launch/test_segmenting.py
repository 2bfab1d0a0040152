"""A run of freecos from training to masks and tables: the files, what is in them, and every wrong input."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from wildfern.launch import evaluate, pretrain
from wildfern.launch.builders import build_method, build_views
from wildfern.launch.errors import RunError
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.segmented_images import names_of_files
from wildfern.launch.segmenting import segment
from wildfern.ssl.data import DataError, open_source
from wildfern.ssl.models.segmentation_settings import SegmentationSettings
from wildfern.ssl.segmentation.small_objects import without_small_objects

SMALL = [
    *["data.0.size=64", "data.1.source=retina", "views.size=48", "views.crop_pixels=[48, 48]"],
    *["model.arguments.widths=[4, 6, 8]", "method.discriminator_width=4", "method.contrast_width=4"],
    *["training.steps=4", "training.batch_size=8", "training.log_every=1", "training.threads=1", "training.device=cpu"],
    *["training.checkpoint_every=2", "optimizer.learning_rate=0.05"],
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return pretrain("freecos_quick", SMALL, run=tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def images(tmp_path):
    """A folder with images of several sizes, one of them in a sub-folder, and one that cannot be read."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    rendered = open_source("lsystem", size=96, seed=3).read(np.arange(3)).pixels
    Image.fromarray(rendered[0]).save(folder / "a.png")
    Image.fromarray(rendered[1][:40, :70]).save(folder / "more" / "b.png")
    Image.fromarray(rendered[2][..., 0]).save(folder / "gray.tif")
    Image.fromarray(rendered[0]).save(folder / "broken.png")
    content = (folder / "broken.png").read_bytes()
    (folder / "broken.png").write_bytes(content[: len(content) // 2])
    return folder


def rows(file):
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def test_a_run_writes_its_decoder_and_a_threshold(run):
    with safe_open(run / "decoder.safetensors", framework="pt") as opened:
        said = json.loads(opened.metadata()["wildfern.decoder"])
    assert 0 < said["threshold"] < 1
    assert said["chosen_on"] == "64 images of lsystem not used in training"
    method = load_file(run / "checkpoints" / "step_00000004" / "training.safetensors")
    decoder = load_file(run / "decoder.safetensors")
    of_method = {
        name.removeprefix("method/decoder."): v for name, v in method.items() if name.startswith("method/decoder.")
    }
    assert decoder.keys() == of_method.keys()
    assert all(torch.equal(decoder[name], of_method[name]) for name in decoder)


def test_training_says_what_comes_next(wildfern):
    done = wildfern("pretrain", "freecos_quick", "--run", "run", *SMALL)
    assert "next: wildfern segment run IMAGES --out MASKS · wildfern neighbors run" in done.stdout


def test_masks_overlays_and_tables_fit_together(run, images, tmp_path):
    said = []
    found = segment(run, images, tmp_path / "out", threshold=0.5, pixel_size=2.0, probabilities=True, say=said.append)
    assert found.images == 3
    assert list(found.unreadable) == ["broken.png"]
    table = rows(tmp_path / "out" / "images.csv")
    assert [row["image"] for row in table] == ["a.png", "gray.tif", "more/b.png"]
    assert [row["mask"] for row in table] == ["a.png", "gray.png", "more__b.png"]
    segments = rows(tmp_path / "out" / "segments.csv")
    assert found.segments == len(segments)
    for row in table:
        mask = np.asarray(Image.open(tmp_path / "out" / row["mask"]))
        gray = np.asarray(Image.open(tmp_path / "out" / "probabilities" / row["mask"]))
        shown = Image.open(tmp_path / "out" / "overlays" / row["mask"].replace(".png", ".jpg"))
        assert set(np.unique(mask)) <= {0, 255}
        assert mask.shape == gray.shape == (int(row["height"]), int(row["width"])) == shown.size[::-1]
        assert np.array_equal(
            mask[np.abs(gray.astype(int) - 127.5) > 1] > 0, gray[np.abs(gray.astype(int) - 127.5) > 1] > 127
        )
        assert float(row["area"]) == pytest.approx((mask > 0).sum() * 4.0)
        own = [float(one["length"]) for one in segments if one["image"] == row["image"]]
        assert float(row["length"]) == pytest.approx(sum(own), abs=1e-2)
        assert int(row["segments"]) == len(own)
    written = json.loads((tmp_path / "out" / "segmentation.json").read_text())
    assert written["complete"] is True
    assert written["threshold"] == 0.5
    assert (written["images"], len(written["unreadable"])) == (3, 1)


def test_small_objects_are_left_out_of_masks_and_tables(run, images, tmp_path):
    first = segment(run, images, tmp_path / "all", threshold=0.5)
    second = segment(run, images, tmp_path / "large", threshold=0.5, smallest=40.0, pixel_size=2.0)
    for row in rows(tmp_path / "large" / "images.csv"):
        whole, found = (np.asarray(Image.open(tmp_path / name / row["mask"])) for name in ("all", "large"))
        np.testing.assert_array_equal(found > 0, without_small_objects(whole > 0, 10))
        assert float(row["area"]) == 4.0 * (found > 0).sum()
    assert second.segments < first.segments


def test_the_network_is_that_of_the_training(run, images, tmp_path):
    """The probabilities are those of backbone and decoder, put together by hand, in one window."""
    image = np.asarray(Image.open(images / "a.png"))[:48, :48]
    Image.fromarray(image).save(tmp_path / "window.png")
    segment(run, tmp_path / "window.png", tmp_path / "out", probabilities=True, overlays=False)
    folder = RunFolder(run)
    backbone = folder.backbone()
    recipe = folder.recipe()
    method = build_method(recipe)
    method.decoder.load_state_dict(load_file(run / "decoder.safetensors"))
    codes = build_views(recipe).intensity_order(torch.tensor(image).permute(2, 0, 1)[None].float() / 255)
    with torch.no_grad():
        logits = method.decoder.eval()(backbone.maps(codes), 48)
    expected = np.rint(logits.sigmoid().numpy()[0] * 255)
    found = np.asarray(Image.open(tmp_path / "out" / "probabilities" / "window.png"))
    assert np.abs(found - expected).max() <= 1
    assert not (tmp_path / "out" / "overlays").exists()


def test_a_segmentation_may_be_repeated_and_its_folder_is_not_mistaken(run, images, tmp_path):
    out = tmp_path / "out"
    first = segment(run, images / "a.png", out)
    assert segment(run, images / "a.png", out) == first
    with pytest.raises(RunError, match="is in the folder of the images"):
        segment(run, images, images)
    with pytest.raises(RunError, match="is in the folder of the images"):
        segment(run, images, images / "masks")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="has other files"):
        segment(run, images, tmp_path / "other")
    with pytest.raises(RunError, match="is a run folder"):
        segment(run, images, run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0.0}, "--threshold is a probability between 0 and 1, got 0"),
        ({"threshold": float("nan")}, "--threshold is a probability"),
        ({"scale": 0.0}, "--scale is a factor above 0"),
        ({"overlap": 1.0}, "--overlap is a share of a window's side, 0 to 0.95, got 1"),
        ({"pixel_size": 0.0}, "--pixel-size is the side of a pixel, above 0"),
        ({"shortest": -1.0}, "--shortest is a length, 0 or more"),
        ({"smallest": -1.0}, "--smallest is an area, 0 or more"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(run, images, tmp_path, arguments, message):
    with pytest.raises(RunError, match=message):
        segment(run, images, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_segmented_is_said(run, images, tmp_path):
    with pytest.raises((RunError, ValueError), match="endless"):
        segment(run, "lsystem", tmp_path / "out")
    with pytest.raises((RunError, DataError, ValueError), match="nowhere"):
        segment(run, "folder:nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises((RunError, DataError), match="no image"):
        segment(run, tmp_path / "empty", tmp_path / "out")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "broken.png").write_bytes((images / "broken.png").read_bytes())
    with pytest.raises((RunError, DataError), match="broken"):
        segment(run, alone, tmp_path / "out2")


def test_a_run_without_a_decoder_or_with_a_damaged_one_is_refused(run, images, tmp_path):
    copied = tmp_path / "copy"
    copied.mkdir()
    for name in ("recipe.yaml", "environment.json", "backbone.safetensors"):
        (copied / name).write_bytes((run / name).read_bytes())
    with pytest.raises(RunError, match=r"has no decoder\.safetensors: its method \(freecos\) trains no segmenter, or"):
        segment(copied, images, tmp_path / "out")
    other = {**load_file(run / "decoder.safetensors")}
    save_file(other, copied / "decoder.safetensors", {"wildfern.decoder": '{"backbone_sha256": "of another"}'})
    with pytest.raises(RunError, match=r"is not of the backbone\.safetensors beside it"):
        segment(copied, images, tmp_path / "out")
    good = (run / "decoder.safetensors").read_bytes()
    (copied / "decoder.safetensors").write_bytes(good[: len(good) // 2])
    with pytest.raises(RunError, match="resuming the run writes"):
        segment(copied, images, tmp_path / "out")
    state = load_file(run / "decoder.safetensors")
    save_file({**state, "classify.bias": torch.zeros(3)}, copied / "decoder.safetensors")
    with pytest.raises(RunError, match="are not those of this run's decoder"):
        segment(copied, images, tmp_path / "out")
    for threshold in (
        '{"threshold": 7, "chosen_on": "x"}',
        '{"threshold": "x", "chosen_on": 1}',
        "[",
        "null",
        '{"threshold": 0.4}',
        '{"backbone_sha256": 5}',
    ):
        save_file(state, copied / "decoder.safetensors", {"wildfern.decoder": threshold})
        with pytest.raises(RunError, match="its metadata are damaged"):
            segment(copied, images, tmp_path / "out")
    save_file(state, copied / "decoder.safetensors")
    assert segment(copied, images / "a.png", tmp_path / "fixed").threshold == 0.5


def test_the_run_is_evaluated_on_images_with_masks(run, tmp_path, monkeypatch):
    folder = tmp_path / "labeled"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    rendered = open_source("lsystem", size=64, seed=9, preset="retina").read(np.arange(5))
    for number, (image, mask) in enumerate(zip(rendered.pixels, rendered.masks, strict=True)):
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask * 255).save(folder / "masks" / f"{number}.png")
    found = evaluate(run, {"source": f"masks:{folder}", "test_fraction": 1.0}, "segmentation")
    main = {row["backbone"]: row for row in found.main_rows()}
    assert main.keys() == {"random", "pretrained"}
    assert main["pretrained"]["metric"] == "dice"
    assert main["pretrained"]["n"] == 5
    assert "threshold 0.5; inside the field of view" in main["pretrained"]["detail"]
    metrics = {row["metric"] for row in found.rows if row["backbone"] == "pretrained"}
    assert metrics >= {"iou", "cl_dice", "roc_auc", "tolerant_f1", "component_error", "dice_validation_threshold"}
    segment(run, folder / "images", tmp_path / "out", threshold=0.5)
    masks = [np.asarray(Image.open(tmp_path / "out" / f"{number}.png")) > 0 for number in range(5)]
    both = [2 * (m & (t > 0)).sum() / (m.sum() + (t > 0).sum()) for m, t in zip(masks, rendered.masks, strict=True)]
    assert main["pretrained"]["value"] == pytest.approx(np.mean(both), abs=1e-6)
    monkeypatch.setenv("COLUMNS", "200")
    shown = str(found)
    assert "dice, validation threshold" in shown
    assert "no gain where" not in shown
    assert "leaves no image" not in shown  # train is not read
    with pytest.raises(ValueError, match="leaves no image for the train split"):
        evaluate(run, {"source": f"masks:{folder}", "test_fraction": 1.0}, "segmentation_probe")


def test_scales():
    assert SegmentationSettings(64, crop_pixels=(96, 160)).scale(500, 900) == 0.5
    assert SegmentationSettings(64, crop_scale=(1.0, 1.0)).scale(128, 900) == 0.5
    assert SegmentationSettings(64, crop_scale=(0.25, 0.25)).scale(128, 900) == 1.0


def test_names_of_files_are_different_and_fit():
    names = [
        "a.png",
        "a.jpg",
        "a.png.tif",
        "A.bmp",
        "more/b.png",
        "more__b.jpg",
        "x" * 300 + ".png",
        "x" * 299 + "y.png",
        "new\nline.png",
    ]
    found = names_of_files(names)
    assert len({one.casefold() for one in found}) == len(names)
    assert all(len(one) <= 122 and "/" not in one and "\n" not in one for one in found)
    assert names_of_files(["c.png", "more/d.jpg", ".hidden"]) == ["c", "more__d", ".hidden"]


def test_a_file_is_read_as_its_folder_was_in_training(run, tmp_path):
    folder = tmp_path / "bits"
    folder.mkdir()
    pixels = (open_source("lsystem", size=64).read(np.arange(2)).pixels[..., 0].astype(np.uint16)) * 16
    for number, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{number}.tif")
    trained = shutil.copytree(run, tmp_path / "run")
    text = (
        (trained / "recipe.yaml")
        .read_text()
        .replace("- source: retina", f"- source: folder:{folder}\n  value_range: [0, 4095]")
    )
    (trained / "recipe.yaml").write_text(text)
    for images, out in ((folder, "whole"), (folder / "0.tif", "one")):
        segment(trained, images, tmp_path / out, probabilities=True, overlays=False)
    whole, one = (np.asarray(Image.open(tmp_path / out / "probabilities" / "0.png")) for out in ("whole", "one"))
    assert np.array_equal(whole, one)
    assert whole.std() > 0


def test_what_was_written_for_images_that_are_gone_is_removed(run, images, tmp_path):
    out = tmp_path / "out"
    segment(run, images, out)
    (images / "a.png").unlink()
    segment(run, images, out)
    assert sorted(file.name for file in out.glob("*.png")) == ["gray.png", "more__b.png"]
    assert sorted(file.name for file in (out / "overlays").iterdir()) == ["gray.jpg", "more__b.jpg"]
    (images / "link").symlink_to(out)
    with pytest.raises(RunError, match="has images that are to be segmented"):
        segment(run, {"source": f"folder:{images}"}, out)
    with pytest.raises(RunError, match="is in the folder of the images"):
        segment(run, {"source": f"folder:{images}"}, images / "masks")


def test_a_run_that_diverged_ends_with_a_message(tmp_path, capsys):
    folder = pretrain(
        "freecos_quick", [*SMALL, "optimizer.learning_rate=1.0e+6", "training.steps=8"], run=tmp_path / "run"
    )
    assert "the threshold stays .5, as none can be chosen" in capsys.readouterr().out
    assert (folder / "report.html").is_file()
