"""Any training image can be rendered again, with its views, from its index."""

import numpy as np
import pytest
from PIL import Image
from small_runs import TINY
from typer.testing import CliRunner

from wildfern.launch import pretrain
from wildfern.launch.builders import build_views, open_mixture
from wildfern.launch.cli import app
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.views_image import CELL, GAP, MARGIN, redraw_views, shown, whole


def cell(path, column, row):
    left, top = GAP + column * (CELL + GAP), MARGIN + row * (CELL + GAP)
    return np.asarray(Image.open(path).crop((left, top, left + CELL, top + CELL)))


def test_views_are_shown_next_to_their_images(tmp_path):
    out = tmp_path / "views.png"
    run = CliRunner().invoke(app, ["views", "quickstart", *TINY, "--indices", "41-42, 3", "--out", str(out)])
    assert run.exit_code == 0, run.output
    assert "shows 3 images that training uses in steps 0 and 5, with their views" in run.output.replace("\n", "")
    recipe = read_recipe("quickstart", TINY)
    mixture, views = open_mixture(recipe), build_views(recipe)
    for row, index in enumerate((3, 41, 42)):  # batches of eight
        image = mixture.read(np.array([index]))
        made = views(views.prepare(image.pixels, recipe.seed, index // 8, np.array([index % 8])))[0]
        for view in range(2):
            expected = Image.fromarray(shown(made[view], views)[0]).resize((CELL, CELL), Image.Resampling.NEAREST)
            assert np.array_equal(cell(out, 1 + view, row), np.asarray(expected))


def test_images_of_a_run_come_from_its_recipe(tmp_path):
    run = pretrain("quickstart", [*TINY, "training.steps=1", "seed=3"], run=tmp_path / "run")
    redraw_views(str(run), [], "0-7", tmp_path / "again.png")
    assert Image.open(tmp_path / "again.png").tobytes() == Image.open(run / "views.png").tobytes()


@pytest.mark.parametrize("indices", ["", "a", "-1", "5-3", "0-7;9", "0-64", "1,,2"])
def test_invalid_indices_are_refused(tmp_path, indices):
    with pytest.raises(RunError, match="--indices"):
        redraw_views("quickstart", TINY, indices, tmp_path / "views.png")


def test_other_folders_and_files_are_refused(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        redraw_views(str(tmp_path), [], "0", tmp_path / "views.png")
    with pytest.raises(RunError, match=r"\.png"):
        redraw_views("quickstart", TINY, "0", tmp_path / "views.gif")


@pytest.mark.parametrize("shape", [(40, 200), (200, 40), (500, 375), (1, 900)])
def test_originals_are_shown_whole(shape):
    height, width = shape
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = (255, 0, 0), (0, 0, 255)
    seen = whole(image).astype(int)
    inside = seen.min(axis=-1) < 128  # not of the white margins
    sides = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    assert sides == (max(1, round(CELL * height / max(shape))), max(1, round(CELL * width / max(shape))))
    across = seen[inside.any(axis=1)][:, inside.any(axis=0)]
    assert (across[:, 0, 0] > across[:, 0, 2]).all()
    assert (across[:, -1, 2] > across[:, -1, 0]).all()
