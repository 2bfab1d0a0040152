"""A checkpoint that several ranks write: complete with the last part, absent if one is missing. Threads stand for ranks."""

import hashlib
import json
import os
import threading
import time

import pytest
from safetensors import SafetensorError

from wildfern.ssl.training import CheckpointStore, checkpoint_parts, checkpoints
from wildfern.ssl.training.checkpoints import CheckpointError
from wildfern.ssl.training.checksums import check

RANKS = 3


class Ranks:
    """Collectives of threads."""

    def __init__(self):
        self.barrier = threading.Barrier(RANKS, timeout=60)
        self.flags = [False] * RANKS

    def any_rank(self, rank, flag):
        self.flags[rank] = flag
        self.barrier.wait()
        found = any(self.flags)
        self.barrier.wait()
        return found

    def run(self, folder, work):
        """`work(store, rank)` on every rank; what each returned or raised."""
        found = [None] * RANKS

        def one(rank):
            store = CheckpointStore(
                folder,
                2,
                is_main=rank == 0,
                any_rank=lambda flag: self.any_rank(rank, flag),
                all_ranks=self.barrier.wait,
                sharded=True,
                rank=rank,
                world_size=RANKS,
            )
            try:
                with store:
                    found[rank] = work(store, rank)
            except Exception as error:
                found[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(RANKS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
            assert not thread.is_alive()
        return found


def part(rank, wait=0.0):
    def save(folder):
        time.sleep(wait)
        (folder / f"part{rank}").write_bytes(bytes([rank]) * 100)
        return folder / f"part{rank}"

    return lambda: save


def test_all_parts_are_in_the_manifest_and_the_newest_are_kept(tmp_path):
    def work(store, rank):
        for step in (3, 6, 9):
            store.write(step, part(rank, 0.2 * rank), {"batch_size": 4})
        return store.wait()

    written = Ranks().run(tmp_path, work)
    assert [one.step for one in written] == [9, 9, 9]
    assert sorted(os.listdir(tmp_path)) == ["step_00000006", "step_00000009"]
    newest = tmp_path / "step_00000009"
    assert check(newest) == {"step": 9, "batch_size": 4, "shards": RANKS}
    assert sorted(os.listdir(newest)) == ["checkpoint.json", "part0", "part1", "part2"]
    files = json.loads((newest / "checkpoint.json").read_text())["files"]
    assert files == {
        f"part{rank}": {"bytes": 100, "sha256": hashlib.sha256(bytes([rank]) * 100).hexdigest()}
        for rank in range(RANKS)
    }


@pytest.mark.parametrize("bad", range(RANKS))
def test_a_part_that_cannot_be_written_is_an_error_on_every_rank(bad, tmp_path):
    def full(folder):
        raise OSError(28, "No space left on device", str(folder / "part"))

    def work(store, rank):
        store.write(3, part(rank), {})
        store.write(6, (lambda: full) if rank == bad else part(rank), {})
        store.wait()

    for rank, error in enumerate(Ranks().run(tmp_path, work)):
        assert isinstance(error, CheckpointError)
        assert ("No space left" if rank == bad else "another rank could not write its part") in str(error)
    assert os.listdir(tmp_path) == ["step_00000003"]
    assert check(tmp_path / "step_00000003")["step"] == 3


def test_what_a_killed_run_left_is_not_part_of_a_checkpoint(tmp_path):
    left = tmp_path / ".unfinished_00000003"
    left.mkdir()
    (left / ".written_00001.json").write_text("{}")
    (left / "part7").write_bytes(b"old")

    def work(store, rank):
        store.write(3, part(rank), {})
        store.wait()

    assert Ranks().run(tmp_path, work) == [None] * RANKS
    assert sorted(os.listdir(tmp_path / "step_00000003")) == ["checkpoint.json", "part0", "part1", "part2"]


def test_training_goes_on_while_parts_are_written(tmp_path):
    may_end, order = threading.Event(), []

    def slow(folder):
        may_end.wait(30)
        (folder / "part").write_bytes(b"1")
        return folder / "part"

    def work(store, rank):
        store.write(3, (lambda: slow) if rank == 2 else part(rank), {})
        if rank == 2:
            order.append("training")
            may_end.set()
        store.wait()

    assert Ranks().run(tmp_path, work) == [None] * RANKS
    assert order == ["training"]


def test_an_error_of_training_gives_up_an_unfinished_checkpoint(tmp_path):
    alone = CheckpointStore(tmp_path, 2, sharded=True, rank=0, world_size=2)  # of the other rank no part will come

    def training():
        with alone:
            alone.write(3, part(0), {})
            raise RuntimeError("in training")

    with pytest.raises(RuntimeError, match="in training"):
        training()
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_an_error_on_every_rank(tmp_path):
    def work(store, rank):
        store.write(3, part(rank), {})

    found = Ranks().run(tmp_path / "missing" / "run", work)
    assert all(isinstance(error, CheckpointError) for error in found)
    assert "No such file" in str(found[0])


def test_a_folder_that_another_host_does_not_see_is_named(tmp_path):
    with pytest.raises(OSError, match="all hosts share"):
        checkpoint_parts.wait_for_folder(tmp_path / "absent", threading.Event(), seconds=0.1)


def test_a_manifest_that_cannot_be_written_after_all_parts_is_an_error_on_every_rank(tmp_path, monkeypatch):
    waiting = threading.Event()  # every rank has found all parts complete

    def full(folder, metadata, known):
        assert waiting.wait(30)
        raise OSError(28, "No space left on device", str(folder / "checkpoint.json"))

    def work(store, rank):
        store.write(3, part(rank), {})
        joins = store._writing.join
        store._writing.join = lambda: (rank or waiting.set(), joins())
        store.wait()

    monkeypatch.setattr(checkpoints, "write_manifest", full)
    for rank, error in enumerate(Ranks().run(tmp_path, work)):
        assert isinstance(error, CheckpointError)
        assert ("another rank could not write" if rank else "checkpoint.json: No space left") in str(error)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (28, "No space left on device); there is no earlier one. Free disk space, then"),
        (27, "File too large)"),
        (5, "Fix"),
    ],
)
def test_an_error_of_safetensors_is_told_like_one_of_the_system(number, words, tmp_path):
    def full(folder):
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")

    def work(store, rank):
        store.write(3, (lambda: full) if rank == 1 else part(rank), {})
        store.wait()

    text = str(Ranks().run(tmp_path, work)[1])
    assert words in text
    assert "os error" not in text
    assert text.endswith("then --resume")
    assert ("ulimit -f" in text) == (number == 27)


def test_what_a_rank_says_of_a_folder_that_it_does_not_see_is_kept(tmp_path):
    def absent(folder):
        checkpoint_parts.wait_for_folder(folder / "absent", threading.Event(), seconds=0.1)

    def work(store, rank):
        store.write(3, (lambda: absent) if rank == 1 else part(rank), {})
        store.wait()

    assert "a file system that all hosts share" in str(Ranks().run(tmp_path, work)[1])
