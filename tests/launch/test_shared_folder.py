"""One run in a folder: what may be begun or gone on with is asked again once nobody else can be in it."""

import pytest
import torch
from small_runs import TINY

from wildfern.launch.assembling import DistributedContext
from wildfern.launch.components import read_recipe
from wildfern.launch.run_folder import RunError, RunFolder
from wildfern.launch.run_lock import lock
from wildfern.launch.shared_folder import check_same_run, chosen_folder, exclusive

ALONE = DistributedContext(0, 1, torch.device("cpu"))


def recipe(*changes):
    return read_recipe("quickstart", [*TINY, *changes])


def test_a_run_that_came_and_went_since_the_folder_was_chosen_is_not_erased(tmp_path):
    folder = chosen_folder(tmp_path / "run", "quickstart", False, ALONE)
    other = RunFolder(folder.path)
    with exclusive(recipe(), other, False, ALONE):
        other.begin(recipe())
    with pytest.raises(RunError, match="holds a run already"), exclusive(recipe(), folder, False, ALONE):
        pytest.fail("it was let in")
    with lock(folder.path):  # the refused one let go of the lock
        pass


def test_another_recipe_that_came_and_went_meanwhile_is_not_gone_on_with(tmp_path):
    folder = chosen_folder(tmp_path / "run", "quickstart", True, ALONE)
    check_same_run(recipe(), folder)  # there is nothing yet
    with exclusive(recipe("seed=7"), folder, True, ALONE):
        folder.begin(recipe("seed=7"))
    with pytest.raises(RunError, match="another recipe: seed differ"), exclusive(recipe(), folder, True, ALONE):
        pytest.fail("it was let in")
    with exclusive(recipe("seed=7"), folder, True, ALONE):
        pass


def test_checkpoints_without_a_recipe_are_not_trained_over(tmp_path):
    (tmp_path / "checkpoints" / "step_00000010").mkdir(parents=True)
    with pytest.raises(RunError, match=r"checkpoints of a run, but no recipe.yaml: go on with --resume"):
        chosen_folder(tmp_path, "quickstart", False, ALONE)
    with pytest.raises(RunError, match="checkpoints of a run"), exclusive(recipe(), RunFolder(tmp_path), False, ALONE):
        pytest.fail("it was let in")
    assert chosen_folder(tmp_path, "quickstart", True, ALONE).path == tmp_path


def test_arguments_that_change_no_image_may_change(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin(recipe("data.threads=1"))
    check_same_run(recipe("data.threads=2"), folder)
    with pytest.raises(RunError, match="another recipe: data differ"):
        check_same_run(recipe("data.threads=2", "data.points=300"), folder)
