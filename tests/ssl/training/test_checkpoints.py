"""Checkpoints are complete or absent, kept as configured, and verified before they are read."""

import errno
import hashlib
import json
import os
import shutil
import threading
import time
from types import SimpleNamespace

import pytest

from wildfern.ssl.training import CheckpointStore, checksums
from wildfern.ssl.training.checkpoints import CheckpointError
from wildfern.ssl.training.checksums import CorruptCheckpoint, check, write_manifest

STATE = bytes(range(256)) * 8


def save(folder):
    (folder / "state").write_bytes(STATE)
    (folder / "part").mkdir()
    (folder / "part" / "more").write_bytes(STATE[::-1])


def write(store, *steps):
    for step in steps:
        store.write(step, lambda: save, {"batch_size": 4})
    return store.wait()


def test_metadata_of_a_checkpoint(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    assert write(store, 5).step == 5
    assert check(store.path(5)) == {"step": 5, "batch_size": 4}
    assert store.newest() == (5, [])
    manifest = json.loads((store.path(5) / "checkpoint.json").read_text())
    assert manifest["files"] == {
        "part/more": {"bytes": len(STATE), "sha256": hashlib.sha256(STATE[::-1]).hexdigest()},
        "state": {"bytes": len(STATE), "sha256": hashlib.sha256(STATE).hexdigest()},
    }


@pytest.mark.parametrize(
    ("keep", "keep_every", "left"),
    [(1, None, [50]), (2, None, [45, 50]), (2, 20, [20, 40, 45, 50]), (3, 10, [10, 20, 30, 40, 45, 50]), (99, 5, None)],
)
def test_the_newest_and_every_kth_are_kept(keep, keep_every, left, tmp_path):
    store, steps = CheckpointStore(tmp_path, keep, keep_every), list(range(5, 55, 5))
    write(store, *steps)
    assert store.steps() == (left or steps)
    assert all(check(store.path(step))["step"] == step for step in store.steps())
    assert len(os.listdir(tmp_path)) == len(store.steps())


def test_writing_runs_in_the_background_and_the_next_checkpoint_waits(tmp_path):
    store, may_end, order = CheckpointStore(tmp_path, keep=2), threading.Event(), []

    def slow(folder):
        assert may_end.wait(30)
        order.append("first written")
        save(folder)

    def copy():
        order.append("second copied")
        return save

    assert store.write(1, lambda: slow, {}) is None
    assert store.steps() == []  # `write` has returned, and unfinished checkpoints are not listed
    threading.Timer(0.2, may_end.set).start()
    assert store.write(2, copy, {}).step == 1
    assert store.wait().step == 2
    assert order == ["first written", "second copied"]
    assert store.wait() is None


def test_the_barrier_comes_before_the_exchange_of_failures(tmp_path):
    order = []

    def slow(folder):
        time.sleep(0.1)
        order.append("written")

    def failed(flag):
        order.append("asked")
        return flag

    main, other = (
        CheckpointStore(tmp_path, keep=2, is_main=is_main, any_rank=failed, all_ranks=lambda: order.append("barrier"))
        for is_main in (True, False)
    )
    main.write(1, lambda: slow, {})
    main.wait()
    assert order == ["barrier", "asked", "written", "barrier", "asked"]
    order.clear()
    other.write(1, lambda: slow, {})
    other.wait()
    assert order == ["barrier", "asked"] * 2  # as often as on the main rank


def test_a_failed_write_is_raised_by_the_next_and_earlier_ones_are_complete(tmp_path):
    def full(folder):
        (folder / "state").write_bytes(STATE[:100])
        raise OSError(28, "No space left on device")

    store = CheckpointStore(tmp_path, keep=2)
    write(store, 5, 10)
    assert not store.failed
    store.write(15, lambda: full, {})
    with pytest.raises(CheckpointError, match=r"after step 15 .*No space left on device.*after step 10 is complete"):
        store.write(20, lambda: save, {})
    assert store.failed
    assert CheckpointStore(tmp_path, keep=2).newest() == (10, [])
    assert sorted(os.listdir(tmp_path)) == ["step_00000005", "step_00000010"]


def test_an_error_that_is_not_of_the_disk_is_raised_unchanged(tmp_path):
    def wrong(folder):
        raise TypeError("no tensor")

    store = CheckpointStore(tmp_path, keep=2)
    store.write(5, lambda: wrong, {})
    with pytest.raises(TypeError, match="no tensor"):
        store.wait()


def test_a_failed_write_is_raised_on_every_rank(tmp_path):
    other = CheckpointStore(tmp_path, keep=2, is_main=False, any_rank=lambda flag: True)
    with pytest.raises(CheckpointError, match="rank 0 could not write"):
        other.wait()
    copied = []
    other = CheckpointStore(tmp_path, keep=2, is_main=False)
    other.write(5, lambda: copied.append("collectively"), {})
    assert other.wait() is None
    assert copied == ["collectively"]
    assert os.listdir(tmp_path) == []


def test_unfinished_folders_are_ignored_and_removed_by_the_next_write(tmp_path):
    left = tmp_path / ".unfinished_00000015"
    left.mkdir()
    write_manifest(left, {"step": 15})
    store = CheckpointStore(tmp_path, keep=2)
    assert store.newest() == (None, [])
    write(store, 5)
    assert os.listdir(tmp_path) == ["step_00000005"]


def test_a_partly_deleted_checkpoint_is_ignored(tmp_path, monkeypatch):
    def half(folder):
        (folder / "state").unlink()
        raise OSError(5, "Input/output error")

    store = CheckpointStore(tmp_path, keep=1)
    write(store, 5)
    monkeypatch.setattr(shutil, "rmtree", lambda folder, ignore_errors=False: ignore_errors or half(folder))
    with pytest.raises(CheckpointError, match=r"after step 10 is complete, but older .*Input/output error"):
        write(store, 10)
    assert store.steps() == [10]
    assert store.newest() == (10, [])


def flip(path):
    path.write_bytes(path.read_bytes()[:700] + bytes([path.read_bytes()[700] ^ 1]) + path.read_bytes()[701:])


def rewritten(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


DAMAGES = {
    "truncated": (lambda c: os.truncate(c / "state", 100), "state has 100 bytes, not the 2048"),
    "longer": (lambda c: (c / "state").write_bytes(STATE + b"x"), "state has 2049 bytes"),
    "one bit": (lambda c: flip(c / "part" / "more"), "the content of part/more differs"),
    "no file": (lambda c: (c / "state").unlink(), "state is missing"),
    "no list": (lambda c: (c / "checkpoint.json").unlink(), "checkpoint.json is missing"),
    "empty list": (lambda c: (c / "checkpoint.json").write_text(""), "checkpoint.json is not valid"),
    "half a list": (lambda c: os.truncate(c / "checkpoint.json", 90), "checkpoint.json is not valid"),
    "other JSON": (lambda c: (c / "checkpoint.json").write_text("[1]"), "checkpoint.json is not valid"),
    "not text": (lambda c: (c / "checkpoint.json").write_bytes(b"\xff\xfe{"), "checkpoint.json is not valid"),
    "no sums": (lambda c: (c / "checkpoint.json").write_text('{"step": 15}'), "has no checksums"),
    "odd sums": (lambda c: rewritten(c / "checkpoint.json", lambda j: j.update(files=[1])), "is not valid"),
    "another fact": (lambda c: rewritten(c / "checkpoint.json", lambda j: j.update(batch_size=8)), "was changed"),
    "another step": (lambda c: (shutil.rmtree(c), shutil.copytree(c.with_name("step_00000010"), c)), "of another step"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_reported_renamed_and_the_one_before_it_used(damage, tmp_path):
    spoil, words = DAMAGES[damage]
    store = CheckpointStore(tmp_path, keep=3)
    write(store, 5, 10, 15)
    spoil(store.path(15))
    step, (printed,) = CheckpointStore(tmp_path, keep=3).newest()
    assert step == 10
    assert words in printed
    assert "step_00000015" in printed
    assert store.steps() == [5, 10]
    assert (tmp_path / "damaged_step_00000015").is_dir()
    write(store, 15)
    assert store.newest() == (15, [])


def test_damaged_twice(tmp_path):
    store = CheckpointStore(tmp_path, keep=3)
    for _ in range(2):
        write(store, 5, 10, 15)
        for step in (10, 15):
            flip(store.path(step) / "state")
        step, printed = store.newest()
        assert (step, len(printed)) == (5, 2)
    assert len([name for name in os.listdir(tmp_path) if name.startswith("damaged_")]) == 4


def test_if_all_are_damaged_an_error_is_raised_and_nothing_is_renamed(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    write(store, 5, 10)
    for step in (5, 10):
        os.truncate(store.path(step) / "state", 0)
    for _ in range(2):
        with pytest.raises(
            CheckpointError, match=r"every checkpoint .*step_00000010: state has 0.*step_00000005: state"
        ):
            store.newest()
    assert store.steps() == [5, 10]


def test_a_folder_in_place_of_a_file_is_damage(tmp_path):
    for name in ("state", "checkpoint.json"):
        (tmp_path / "state").write_bytes(STATE)
        (tmp_path / "checkpoint.json").unlink(missing_ok=True)
        write_manifest(tmp_path, {})
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
        with pytest.raises(CorruptCheckpoint, match=f"{name} is a folder, not a regular file"):
            check(tmp_path)
        (tmp_path / name).rmdir()


@pytest.mark.parametrize("name", ["state", "checkpoint.json"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_an_unreadable_file_is_not_damage_and_nothing_is_renamed(name, number, tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep=2)
    write(store, 5, 10)
    sick, opened = store.path(10) / name, os.open

    def broken(file, *arguments, **keywords):
        if os.fspath(file) == str(sick):
            raise OSError(number, os.strerror(number), str(sick))
        return opened(file, *arguments, **keywords)

    with monkeypatch.context() as now:
        now.setattr(os, "open", broken)
        with pytest.raises(CheckpointError, match=f"cannot read .*{name}: {os.strerror(number)}.*Nothing was changed"):
            store.newest()
    assert sorted(os.listdir(tmp_path)) == ["step_00000005", "step_00000010"]
    assert store.newest() == (10, [])


def test_an_unreadable_folder_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep=2)
    write(store, 5)

    def broken(folder):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(folder))

    monkeypatch.setattr(os, "listdir", broken)
    with pytest.raises(CheckpointError, match="cannot read"):
        store.newest()


@pytest.mark.parametrize(("system", "flags"), [("nt", 2 | 0x8000), ("posix", 0)])
def test_fsync_uses_a_writable_handle_on_windows(system, flags, tmp_path, monkeypatch):
    calls = []

    def record(path, how):
        calls.append((path, how))
        return 7

    names = {"O_RDONLY": 0, "O_RDWR": 2, "O_BINARY": 0x8000}
    there = SimpleNamespace(name=system, open=record, fsync=calls.append, close=calls.append, **names)
    monkeypatch.setattr(checksums, "os", there)
    checksums.to_disk(tmp_path / "state")
    assert calls == [(tmp_path / "state", flags), 7, 7]
