"""`wildfern init FOLDER`: what it finds, chooses and writes."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from wildfern.launch import init
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.folder_survey import survey_folder
from wildfern.launch.init_text import Choice, _text, recipe_of_folder
from wildfern.launch.network_choice import NETWORKS, choose_network
from wildfern.ssl.data import DataError
from wildfern.ssl.models import Backbone

SMALLEST = NETWORKS[-1]


def noise(shape, most=256, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, most, shape).astype(dtype)


@pytest.fixture
def labeled(tmp_path):
    for name in ("a: b", "c#d"):
        (tmp_path / "of cats" / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(noise((50, 40, 3), seed=number)).save(tmp_path / "of cats" / name / f"{number}.png")
    return tmp_path / "of cats"


def loaded(folder, tmp_path, network=SMALLEST):
    """The written recipe, and the messages on reading it."""
    survey = survey_folder(str(folder))
    choice = Choice(str(folder), network, 32, 1, "1h")
    (tmp_path / "written.yaml").write_text(recipe_of_folder(survey, choice))
    said = []
    recipe = read_recipe(tmp_path / "written.yaml", announce=said.append)
    assert said == []
    return survey, recipe


def test_few_labeled_images_are_mixed_and_evaluated(labeled, tmp_path):
    survey, recipe = loaded(labeled, tmp_path)
    assert (survey.images, survey.width, survey.height, survey.channels, survey.gray) == (16, 40, 50, 3, False)
    assert survey.classes == {"a: b": 8, "c#d": 8}
    assert [entry.source for entry in recipe.data] == [f"folder:{labeled}", "ifs"]
    assert recipe.data[0].arguments["test_fraction"] == 0.2  # the split of the evaluation
    assert [entry.source for entry in recipe.evaluation.on] == [f"folder:{labeled}"]
    assert recipe.views.arguments["mean"] is None  # ImageNet's


def test_gray_images_of_16_bits(tmp_path):
    (tmp_path / "gray").mkdir()
    for number in range(6):
        pixels = noise((48, 64), 3000, np.uint16, number) + 500
        Image.fromarray(pixels).save(tmp_path / "gray" / f"{number}.tif")
    survey, recipe = loaded(tmp_path / "gray", tmp_path)
    low, high = survey.decoding["value_range"]
    assert survey.gray
    assert survey.types == ["uint16"]
    assert low == pytest.approx(515, abs=10)
    assert high == pytest.approx(3485, abs=10)
    assert recipe.data[1].arguments["color"] is False
    assert recipe.views.arguments["mean"] == pytest.approx([0.5] * 3, abs=0.02)  # with the range, not of 0 … 65535
    assert recipe.evaluation.on == []


def test_images_of_five_bands_are_not_mixed(tmp_path):
    (tmp_path / "bands").mkdir()
    for number in range(4):
        pixels = noise((5, 48, 64), 3000, np.uint16, number)
        tifffile.imwrite(
            tmp_path / "bands" / f"{number}.tif", pixels, planarconfig="separate", photometric="minisblack"
        )
    survey, recipe = loaded(tmp_path / "bands", tmp_path)
    assert len(recipe.data) == 1
    assert (recipe.data[0].arguments["bands"], len(recipe.data[0].arguments["value_range"])) == ((1, 2, 3, 4, 5), 5)
    assert recipe.model.arguments["in_chans"] == len(recipe.views.arguments["std"]) == 5
    assert "cannot be mixed in" in Choice("x", SMALLEST, 32, 1, "1h").about_few(survey)


def test_large_images_are_reduced_and_tiny_ones_left_out(tmp_path):
    (tmp_path / "sizes").mkdir()
    for number, side in enumerate((600, 700, 800, 9)):
        Image.fromarray(noise((side, side, 3))).save(tmp_path / "sizes" / f"{number}.png")
    _, recipe = loaded(tmp_path / "sizes", tmp_path)
    assert (recipe.data[0].arguments["min_side"], recipe.data[0].arguments["max_side"]) == (16, 96)


def test_folders_without_usable_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        survey_folder(str(tmp_path / "nowhere"))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        survey_folder(str(tmp_path))


@pytest.mark.parametrize("network", [n for n in NETWORKS if n.size in (224, 96)], ids=str)
def test_flops_of_the_networks_are_those_that_torch_counts(network):
    with torch.device("meta"):
        backbone = Backbone(network.backbone, **network.arguments)
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            backbone.network(torch.empty(1, 3, network.size, network.size))
    assert network.image_flops == pytest.approx(6 * flops.get_total_flops(), rel=0.1)


def test_faster_machines_and_longer_times_get_larger_networks():
    assert choose_network(500, 1e14, 36_000) == NETWORKS[0]
    assert choose_network(500, 1e9, 60) == SMALLEST
    sizes = [choose_network(500, flops, 3600).image_flops for flops in (1e9, 1e10, 1e11, 1e12, 1e13)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 3
    assert choose_network(60, 1e14, 36_000).size == 64  # not much larger than the images
    assert choose_network(8, 1e14, 36_000).size == 48


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("1h30m", 5400), ("2d", 172_800), ("1.5 h", 5400)])
def test_durations(text, seconds):
    assert init.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["5", "fast", "1h x", "", "1s", "900d"])
def test_invalid_durations(text):
    with pytest.raises(RunError, match="--time must be"):
        init.seconds_of(text)


def test_the_command_writes_a_recipe_that_loads_and_keeps_an_existing_file(wildfern, labeled, tmp_path, monkeypatch):
    monkeypatch.setattr(init, "choose_network", lambda side, flops, seconds: SMALLEST)
    monkeypatch.setattr(init, "trial_steps", partial(init.trial_steps, seconds=0.0))
    plugin = tmp_path / "empty_plugin.py"
    plugin.write_text("")
    done = wildfern("init", str(labeled), "--time", "2m", "--out", "made/mine.yaml", "--plugin", str(plugin))
    assert done.returncode == 0, done.stderr
    assert re.search(r"16 images of 3 channels, typically 40 × 50 px, 2 classes", done.stdout)
    assert "  wildfern pretrain made/mine.yaml --dry-run" in done.stdout
    recipe = read_recipe(tmp_path / "made" / "mine.yaml")
    assert [Path(path).resolve() for path in recipe.plugins] == [plugin]
    assert recipe.training.steps > 1
    assert recipe.training.batch_size == 64
    again = wildfern("init", str(labeled), "--out", "made/mine.yaml")
    assert (again.returncode, again.stderr.count("exists: add --force")) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty_plugin.py", "made", "of cats"]


def test_any_name_of_a_folder_is_one_yaml_scalar():
    for name in ("a\x7fb", "a\x85b", "a\u2028b", "a\ufeffb", "q\"u'o#t: e", "tab\t", "ü", "plain/images"):
        assert yaml.safe_load(f"key: {_text(name)}") == {"key": name}
    with pytest.raises(RunError, match="not UTF-8"):
        init.init_recipe("a\udcff", Path("recipe.yaml"))
