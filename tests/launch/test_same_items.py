"""A run resumes only on the data it was started with."""

import json

import numpy as np
import pytest
from PIL import Image
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.resuming import check_same_items


def image(path, number):
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)


def test_an_additional_image_is_refused_with_both_counts(tmp_path):
    images, run = tmp_path / "images", tmp_path / "run"
    images.mkdir()
    for number in range(9):
        image(images / f"{number}.png", number)
    changes = [change for change in TINY if not change.startswith("data.")]
    changes += [f"data={{source: 'folder:{images}'}}", "evaluation.online_probe=null"]
    pretrain("quickstart", [*changes, "training.steps=2"], run=run)
    assert json.loads((run / "checkpoints" / "step_00000002" / "checkpoint.json").read_text())["items"] == [9]

    image(images / "one more.png", 9)
    with pytest.raises(RunError, match=r"images has 10 items now, but had 9 when"):
        pretrain("quickstart", [*changes, "training.steps=3"], run=run, resume=True)
    (images / "one more.png").unlink()
    pretrain("quickstart", [*changes, "training.steps=3"], run=run, resume=True)
    assert (run / "checkpoints" / "step_00000003").is_dir()


def test_the_source_that_changed_is_named():
    recipe = read_recipe("quickstart", [*TINY, "data=[{source: ifs}, {source: digits}]"])
    check_same_items(recipe, [None, 7], [None, 7])
    check_same_items(recipe, None, [None, 7])  # a checkpoint without the numbers
    with pytest.raises(RunError, match=r"^digits has 7 items now, but had 8"):
        check_same_items(recipe, [None, 8], [None, 7])
    with pytest.raises(RunError, match=r"has 2 data sources, but had 1 "):
        check_same_items(recipe, [None], [None, 7])
