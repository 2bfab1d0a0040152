"""Training and evaluation on images of many bands, from files to scores; what does not fit is refused before."""

import json

import numpy as np
import pytest
import tifffile
from forked_runs import ForkedRun
from PIL import Image
from small_runs import TINY
from typer.testing import CliRunner

from wildfern.launch import pretrain
from wildfern.launch.cli import app
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.evaluation_data import check_channels_of
from wildfern.launch.stats import describe_source
from wildfern.launch.views_image import shown, whole
from wildfern.recipes import RecipeErrors
from wildfern.ssl.augmentation import simclr
from wildfern.ssl.data import DataError, Mixture, open_source

ALL = list(range(1, 14))
NORMALIZED = [f"views.mean={[0.4] * 13}", f"views.std={[0.2] * 13}"]
GENERATOR = [change for change in TINY if not change.startswith(("data.", "model.arguments", "evaluation"))]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """24 files of 13 bands in two classes; one is truncated."""
    root, draws = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for number in range(24):
        name = ("field", "water")[number % 2]
        (root / name).mkdir(exist_ok=True)
        values = draws.integers(0, 500, (36, 36, 13)) + 2500 * (np.arange(13) % 2 == number % 2)
        tifffile.imwrite(
            root / name / f"{number:02}.tif", values.astype(np.uint16), photometric="minisblack", planarconfig="contig"
        )
    cut = root / "field" / "00.tif"
    cut.write_bytes(cut.read_bytes()[:9000])
    return root


def changes(source: str, *more: str) -> list[str]:
    arguments = "model.arguments={layers: [1, 1, 0, 0], channels: [8, 8, 8, 8], in_chans: 13}"
    return [
        f"data={{source: '{source}', bands: {ALL}, value_range: [0, 3000]}}",
        *GENERATOR,
        arguments,
        *NORMALIZED,
        *more,
    ]


def test_a_run_on_thirteen_bands_is_trained_and_evaluated(scenes, tmp_path):
    on = f"{{source: 'folder:{scenes}', bands: {ALL}, value_range: [0, 3000]}}"
    evaluation = [
        f"evaluation.on=[{on}]",
        "evaluation.protocols=[linear, {name: finetune, epochs: 1}]",
        "evaluation.few_shot=[]",
    ]
    run = ForkedRun(tmp_path / "run", changes(f"folder:{scenes}", "training.steps=2", *evaluation))
    assert run.wait() == 0, run.output()
    assert "views: saturation, hue, gray are left out" in run.output()
    rows = json.loads((tmp_path / "run" / "evaluation.json").read_text())["rows"]
    best = {
        row["protocol"]: row["value"] for row in rows if row["backbone"] == "pretrained" and row["metric"] == "accuracy"
    }
    assert best["linear"] == 1.0
    assert any(protocol.startswith("finetune") for protocol in best)
    assert "truncated" in (tmp_path / "run" / "skipped.jsonl").read_text()
    assert Image.open(tmp_path / "run" / "views.png").size[0] > 300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ["views.mean=null", "views.std=null"],
            "gives images of 13 channels, but the views take 3: set views.mean and views.std",
        ),
        (["views.std=null"], "std is missing"),
        (["model.arguments.in_chans=3"], "model.arguments.in_chans: must be 13"),
        (["data.bands=[1, 2]"], "data.0.bands gives images of 2 channels"),
        (["data.bands=[0]"], "greater than or equal to 1"),
        (["data.value_range=all"], "'image' or 'dataset', got \"all\""),
        (["views.mean=[123.0, 1.0]"], "less than or equal to 1"),
    ],
)
def test_recipes_that_do_not_fit_their_bands_are_refused(scenes, change, message):
    with pytest.raises(RecipeErrors) as caught:
        read_recipe("quickstart", [*changes(f"folder:{scenes}"), *change])
    assert message in str(caught.value)


def test_images_and_views_must_have_the_same_channels(scenes, tmp_path):
    result = CliRunner().invoke(
        app, ["views", "quickstart", *changes(f"folder:{scenes}", "data.bands=null"), "--out", str(tmp_path / "v.png")]
    )
    assert "choose three: bands: [3, 2, 1]" in str(result.exception)
    result = CliRunner().invoke(
        app, ["views", "quickstart", "data={source: digits}", *changes("x")[1:], "--out", str(tmp_path / "v.png")]
    )
    assert "digits gives images of 3 channels, but views.mean has 13" in str(result.exception)
    three = open_source("digits")
    with pytest.raises(DataError, match="must have one number of channels, but theirs are 3, 1"):
        Mixture([(three, 1.0), (open_source(f"folder:{scenes}", bands=(1,)), 1.0)], 0)


def test_data_sets_with_other_channels_are_refused_before_training(scenes, tmp_path):
    with pytest.raises(
        RunError, match="digits gives images of 3 channels, but the backbone takes 13: choose the bands"
    ):
        pretrain("quickstart", changes(f"folder:{scenes}", "evaluation.on=[{source: digits}]"), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_stats_print_recipe_keys_that_can_be_pasted(scenes):
    text = describe_source(f"folder:{scenes}", {"bands": ALL, "value_range": [0, 3000], "labels": "folders"}, images=24)
    assert "24 images, 23 of them examined" in text
    assert "size: 36 x 36 px" in text
    assert "channels: 13; needs model.arguments: {in_chans: 13}" in text
    assert "stored values: uint16, 0 to 2999" in text
    assert "classes: 2, in all images: field 12, water 12" in text
    assert "00.tif: truncated or damaged" in text
    views = next(line for line in text.splitlines() if line.startswith("views: {mean"))
    recipe = read_recipe("quickstart", [*changes(f"folder:{scenes}"), f"views={views.removeprefix('views: ')}"])
    pixels = (
        open_source(f"folder:{scenes}", bands=tuple(ALL), value_range=(0.0, 3000.0)).read(np.arange(1, 24)).pixels / 255
    )
    np.testing.assert_allclose(recipe.views.arguments["mean"], pixels.mean(axis=(0, 1, 2)), atol=1e-3)
    np.testing.assert_allclose(recipe.views.arguments["std"], pixels.std(axis=(0, 1, 2)), atol=1e-3)


@pytest.mark.parametrize("source", ["digits", "ifs"])
def test_stats_of_named_sets_and_generators(source):
    arguments = [] if source == "digits" else ["size=32", "points=100"]
    result = CliRunner().invoke(app, ["stats", source, *arguments, "--images", "5"])
    assert result.exit_code == 0
    assert ("1,258 images, 5 of them" if source == "digits" else "endless, 5 of them") in result.output
    assert "views: {mean: [" in result.output


@pytest.mark.parametrize(
    "words", [["digits --x=1"], ["{source: digits, size: 9}"], ["{size: 9}"], ["{source: folder:a #1}"]]
)
def test_stats_take_a_source_written_as_for_evaluate(words):
    result = CliRunner().invoke(app, ["stats", *words])
    assert isinstance(result.exception, RecipeErrors | DataError)
    assert "Traceback" not in result.output


def test_stats_take_arguments_in_the_same_word(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "p #1" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "p #1" / name / "1.png")
    for source in (
        f"folder:{tmp_path}/p #1 labels=folders bands=[1]",
        f"{{source: 'folder:{tmp_path}/p #1', labels: folders}}",
    ):
        result = CliRunner().invoke(app, ["stats", source], catch_exceptions=False)
        assert "classes: 2, in all images: a 1, b 1" in result.output


def test_stats_refuse_unknown_arguments_and_unreadable_sources(scenes):
    with pytest.raises(RecipeErrors, match=r"stats: .*band: unknown argument; did you mean bands"):
        describe_source(f"folder:{scenes}", {"band": [1]})
    with pytest.raises(DataError, match="has 13 bands of uint16"):
        describe_source(f"folder:{scenes}", {})


def test_other_channels_are_drawn_as_gray_or_by_the_first_three():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 13), np.uint8)
    np.testing.assert_array_equal(whole(image), whole(image[..., :3]))
    np.testing.assert_array_equal(whole(image[..., :2]), whole(np.repeat(image[..., :1], 3, axis=2)))
    views = simclr(size=8, mean=(0.25, 0.5), std=(0.5, 0.5), crop_scale=(1.0, 1.0))
    view = views(views.prepare(image[None, ..., :2], 0, 0, np.zeros(1, np.int64)))[0][0]
    expected = (view[0, :1] * 0.5 + 0.25).clamp(0, 1).mul(255).round().expand(3, -1, -1).permute(1, 2, 0)
    np.testing.assert_array_equal(shown(view, views)[0], expected.numpy())


def test_the_backbone_that_takes_other_channels_is_named():
    digits = open_source("digits", "train")
    with pytest.raises(RunError, match="but test_vit random takes 4: choose the bands"):
        check_channels_of({"digits": (digits, digits)}, 4, "test_vit random")
