"""One run per folder: whether it may start or resume is checked again inside the lock."""

import pytest
import torch
from small_runs import TINY
from tar_bytes import member, png

from wildfern.launch.cluster.distributed import DistributedContext
from wildfern.launch.cluster.run_lock import lock
from wildfern.launch.cluster.shared_folder import chosen_folder, exclusive
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.resuming import check_same_run
from wildfern.launch.run_folder import RunFolder

ALONE = DistributedContext(0, 1, torch.device("cpu"))


def recipe(*changes):
    return read_recipe("quickstart", [*TINY, *changes])


def test_a_run_that_used_the_folder_since_it_was_chosen_is_not_overwritten(tmp_path):
    folder = chosen_folder(tmp_path / "run", "quickstart", False, ALONE)
    other = RunFolder(folder.path)
    with exclusive(recipe(), other, False, ALONE):
        other.begin(recipe())
    with pytest.raises(RunError, match="already holds a run"), exclusive(recipe(), folder, False, ALONE):
        pytest.fail("it was let in")
    with lock(folder.path):  # the refused run released the lock
        pass


def test_a_run_of_another_recipe_that_used_the_folder_meanwhile_is_not_resumed(tmp_path):
    folder = chosen_folder(tmp_path / "run", "quickstart", True, ALONE)
    check_same_run(recipe(), folder)  # an empty folder
    with exclusive(recipe("seed=7"), folder, True, ALONE):
        folder.begin(recipe("seed=7"))
    with pytest.raises(RunError, match="another recipe: seed differ"), exclusive(recipe(), folder, True, ALONE):
        pytest.fail("it was let in")
    with exclusive(recipe("seed=7"), folder, True, ALONE):
        pass


def test_checkpoints_without_a_recipe_are_not_overwritten(tmp_path):
    (tmp_path / "checkpoints" / "step_00000010").mkdir(parents=True)
    with pytest.raises(RunError, match=r"checkpoints of a run, but no recipe.yaml: add --resume"):
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


def test_the_same_learning_rate_may_be_stated_in_the_other_form(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin(recipe("optimizer.learning_rate=0.25", "training.batch_size=64"))
    check_same_run(recipe("optimizer.base_learning_rate=1.0", "training.batch_size=64"), folder)
    with pytest.raises(RunError, match="another recipe: optimizer differ"):
        check_same_run(recipe("optimizer.base_learning_rate=0.5", "training.batch_size=64"), folder)


def test_a_refusal_names_the_keys_that_differ_and_both_values(tmp_path):
    content = b"".join(member(b"%d.png" % value, png(value)) for value in range(8))
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(content)
    tiny = [change for change in TINY if not change.startswith("data.")]
    shards = [*tiny, f"data=webdataset:{tmp_path}/*.tar", "evaluation.online_probe=null"]
    blocks = [*shards, "data.order=blocks", "data.buffer=8"]
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.begin(read_recipe("quickstart", blocks))
    for same in ("data.index=false", "data.cache_gb=1", "data.fingerprint=contents", "training.steps=9"):
        check_same_run(read_recipe("quickstart", [*blocks, same]), folder)
    for changes, named in (
        ([*shards, "data.order=blocks", "data.buffer=16"], r"data differ \(data\.buffer 8 → 16\)\. Repeat"),
        (shards, r'data differ \(data\.order "blocks" → "random", data\.buffer 8 → null\)'),
        (
            [*blocks, "seed=3", "training.batch_size=4"],
            r"seed, training\.batch_size differ \(seed 0 → 3, training\.batch_",
        ),
        (
            [*shards, f"data=[webdataset:{tmp_path}/*.tar, digits]", "data.0.order=blocks", "data.0.buffer=8"],
            r'data differ \(.*data\.1\.source null → "digits"',
        ),
        ([*blocks, "model.activation_checkpointing=true", "seed=3"], r"seed differ \(seed 0 → 3\)"),
    ):
        with pytest.raises(RunError, match=named):
            check_same_run(read_recipe("quickstart", changes), folder)
