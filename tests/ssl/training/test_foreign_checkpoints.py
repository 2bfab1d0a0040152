"""Checkpoint folders from a stranger: nothing outside them is read, and what is not a checkpoint is refused in words."""

import hashlib
import json
import os
import shutil

import pytest

from wildfern.ssl.training import CheckpointStore
from wildfern.ssl.training.checkpoints import CheckpointError, checkpoint_steps
from wildfern.ssl.training.checksums import MOST_BYTES, MOST_FILES, CorruptCheckpoint, check

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs")
RUN, OTHER = "a" * 32, "b" * 32


def save(folder):
    (folder / "state").write_bytes(b"state")
    (folder / "part").mkdir()
    (folder / "part" / "more").write_bytes(b"more")


def write(store, *steps, **metadata):
    for step in steps:
        store.write(step, lambda: save, metadata)
        store.wait()


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints", keep=3)
    write(store, 5, 10, run=RUN)
    return store


def sealed(folder, **changes):
    """Change the manifest, with a valid checksum of its own."""
    content = json.loads((folder / "checkpoint.json").read_text())
    del content["sha256"]
    content |= changes
    own = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / "checkpoint.json").write_text(json.dumps({**content, "sha256": own}))


def listed(folder, name, **changes):
    files = json.loads((folder / "checkpoint.json").read_text())["files"]
    sealed(folder, files={**files, name: {"bytes": 5, "sha256": "0" * 64, **changes}})


def replaced(path, make):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


NO_FILE = "which is not a file of the checkpoint"
FORGED = {
    "nested": (lambda c: (c / "checkpoint.json").write_text('{"files":' * 100_000), "nested too deeply"),
    "huge": (lambda c: os.truncate(c / "checkpoint.json", MOST_BYTES + 1), "is larger than 4,194,304 bytes"),
    "long number": (lambda c: (c / "checkpoint.json").write_text("[" + "9" * 5000 + "]"), "is not valid"),
    "device": (lambda c: listed(c, "/proc/kmsg"), NO_FILE),
    "above": (lambda c: listed(c, "../step_00000005/state"), NO_FILE),
    "inside and above": (lambda c: listed(c, "part/../../../victim"), NO_FILE),
    "windows": (lambda c: listed(c, "C:\\state"), NO_FILE),
    "control characters": (lambda c: listed(c, "\x1b[2Jstate"), NO_FILE),
    "end of text": (lambda c: listed(c, "state\0"), NO_FILE),
    "empty": (lambda c: listed(c, ""), NO_FILE),
    "long": (lambda c: listed(c, "x" * 300), NO_FILE),
    "many": (
        lambda c: sealed(c, files={str(n): {"bytes": 0, "sha256": "0" * 64} for n in range(MOST_FILES + 1)}),
        "names 10,001 files, over the limit of 10,000",
    ),
    "no mapping": (lambda c: sealed(c, files={"state": 5}), "is not valid, or has no checksums"),
    "size is a list": (lambda c: listed(c, "state", bytes=[5]), "is not valid, or has no checksums"),
    "size is a flag": (lambda c: listed(c, "state", bytes=True), "is not valid, or has no checksums"),
    "negative size": (lambda c: listed(c, "state", bytes=-5), "is not valid, or has no checksums"),
    "sum is a number": (lambda c: listed(c, "state", sha256=0), "is not valid, or has no checksums"),
    "step is a text": (lambda c: sealed(c, step="10"), "of another step"),
    "step is a fraction": (lambda c: sealed(c, step=10.0), "of another step"),
    "step is large": (lambda c: sealed(c, step=10**30), "more than 64 bits"),
    "items": (lambda c: sealed(c, items="100"), "items in its manifest is not a list"),
    "number of items": (lambda c: sealed(c, items=[1, None, 2.5]), "no whole numbers"),
    "skipped": (lambda c: sealed(c, skipped_in_a_row="many"), "no whole numbers"),
    "FIFO": (lambda c: replaced(c / "state", os.mkfifo), "state is a FIFO"),
    "FIFO as the manifest": (lambda c: replaced(c / "checkpoint.json", os.mkfifo), "checkpoint.json is a FIFO"),
    "link": (lambda c: replaced(c / "state", lambda p: p.symlink_to(c.parent / "step_00000005" / "state")), "is a symbolic link"),
    "folder behind a link": (
        lambda c: replaced(c / "part", lambda p: p.symlink_to(c.parent / "step_00000005" / "part")),
        "is a symbolic link",
    ),
    "a file": (lambda c: replaced(c, lambda p: p.write_bytes(b"")), "it is a file, not a folder"),
    "all behind a link": (lambda c: replaced(c, lambda p: p.symlink_to(c.parent / "step_00000005")), "it is a symbolic link"),
    "of another run": (lambda c: sealed(c, run=OTHER), "cannot be used: it is a checkpoint of another run"),
    "of a run that is not a text": (lambda c: sealed(c, run=[1]), "cannot be used: it is a checkpoint of another run"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_what_is_no_checkpoint_is_set_aside_and_the_one_before_used(what, store):
    forge, words = FORGED[what]
    forge(store.path(10))
    step, (message,) = store.newest(RUN)
    assert step == 5
    assert words in message
    assert message.isprintable()
    assert sorted(os.listdir(store.folder)) == ["damaged_step_00000010", "step_00000005"]
    assert check(store.path(5))["step"] == 5


def test_step_1_is_not_true(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    write(store, 1)
    sealed(store.path(1), step=True)
    with pytest.raises(CheckpointError, match="of another step"):
        store.newest()


def test_checkpoints_without_an_id_and_any_without_a_run_to_compare_are_accepted(store):
    assert store.newest() == (10, [])
    assert store.newest(RUN) == (10, [])
    write(store, 15)  # as an earlier version
    assert store.newest(OTHER) == (15, [])
    assert store.metadata(10)["run"] == RUN


def test_if_all_are_of_another_run_nothing_is_renamed(store):
    with pytest.raises(CheckpointError, match=r"of another run than .*remove environment\.json"):
        store.newest(OTHER)
    assert store.steps() == [5, 10]


def test_only_exact_names_are_checkpoints(store):
    for name in (
        "step_²",
        "step_٣",
        "step_5",
        "step_000000012",
        "step_-0000001",
        "step_00000012 ",
        "step_",
        "step_1e9",
    ):
        (store.folder / name).mkdir()
    assert store.steps() == [5, 10]
    (store.folder / "step_123456789").mkdir()
    assert store.steps() == [5, 10, 123_456_789]
    assert checkpoint_steps(store.path(5) / "state") == []


def test_nothing_is_deleted_behind_links(store, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "keep").write_text("precious")
    (store.folder / ".unfinished_00000001").symlink_to(victim)
    (store.folder / ".unfinished_step_00000002").write_text("a file")
    (store.folder / ".unfinished_mine").mkdir()
    (store.folder / "step_00000001").symlink_to(victim)
    (store.folder / "step_00000015").symlink_to(victim)
    write(store, 15, 20, run=RUN)
    assert os.listdir(victim) == ["keep"]
    names = [".unfinished_mine", "step_00000010", "step_00000015", "step_00000020"]
    assert sorted(os.listdir(store.folder)) == names
    assert store.newest() == (20, [])


def test_a_folder_of_checkpoints_behind_a_link_is_refused(tmp_path):
    important = tmp_path / "important"
    (important / ".unfinished_00000005").mkdir(parents=True)
    (important / "step_00000001").mkdir()
    (tmp_path / "checkpoints").symlink_to(important)
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    with pytest.raises(CheckpointError, match=r"checkpoints is a symbolic link.*put a folder in its place"):
        store.newest()
    store.write(5, lambda: save, {})
    with pytest.raises(CheckpointError, match="is a symbolic link"):
        store.wait()
    assert sorted(os.listdir(important)) == [".unfinished_00000005", "step_00000001"]


def test_a_newer_checkpoint_that_somebody_added_does_not_push_out_the_runs_own(store):
    (store.folder / "step_99999999").mkdir()
    write(store, 15, 20)
    assert store.steps() == [10, 15, 20, 99_999_999]


def test_a_name_for_a_damaged_checkpoint_is_free_of_links(store, tmp_path):
    (store.folder / "damaged_step_00000010").symlink_to(tmp_path / "nowhere")
    (store.path(10) / "state").write_bytes(b"other")
    assert "renamed to damaged_step_00000010-1" in store.newest()[1][0]


def test_a_file_of_another_size_is_not_read(store):
    os.truncate(store.path(10) / "state", 2**40)  # with a hole
    with pytest.raises(CorruptCheckpoint, match="state has 1099511627776 bytes, not the 5"):
        check(store.path(10))


def test_folders_that_are_too_deep_to_delete_are_told(store, monkeypatch):
    def too_deep(path):
        raise RecursionError

    (store.folder / ".unfinished_00000015").mkdir()
    monkeypatch.setattr("shutil.rmtree", too_deep)
    store.write(15, lambda: save, {})
    with pytest.raises(
        CheckpointError, match=r"\.unfinished_00000015: folders are nested too deeply.*step 10 is complete"
    ):
        store.wait()


def test_a_run_folder_that_was_moved_is_not_made_again(store, tmp_path):
    store.folder = tmp_path / "moved" / "checkpoints"
    store.write(15, lambda: save, {})
    with pytest.raises(CheckpointError, match=r"moved/checkpoints: No such file"):
        store.wait()
    assert not (tmp_path / "moved").exists()
