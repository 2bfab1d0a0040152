"""Saved states in one file and in several: tensors and pieces by name, and damage that is noticed."""

import json
import re
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from wildfern.ssl.training.checksums import write_manifest
from wildfern.ssl.training.fitting_state import StateMismatch
from wildfern.ssl.training.merging import NotMerged, merge
from wildfern.ssl.training.sharded_state import StateShard, write_shard
from wildfern.ssl.training.state_file import FILE, open_state, shard_name

STATE = {
    "method/weight": torch.arange(35.0, dtype=torch.float64).view(5, 7),
    "method/a@0": torch.arange(11, dtype=torch.int64),  # a name that looks like that of a piece
    "optimizer/weight/step": torch.tensor(3.0),
    "method/half": torch.arange(9, dtype=torch.bfloat16),
    "method/none": torch.zeros(0, 4),
}


def shards(folder, ranks, seed=0):
    """Write STATE in pieces with random bounds; scalars and empty tensors are rank 0's."""
    draw = np.random.default_rng(seed)
    parts = [StateShard(rank, ranks) for rank in range(ranks)]
    for name, value in STATE.items():
        flat = value.flatten()
        cuts = np.sort(draw.integers(0, len(flat) + 1, ranks - 1)) if len(flat) > 1 else [len(flat)] * (ranks - 1)
        bounds = [0, *map(int, cuts), len(flat)]
        for rank, part in enumerate(parts):
            if rank == 0 or len(flat) > 1:
                part.add(name, value.shape, bounds[rank], flat[bounds[rank] : bounds[rank + 1]])
    return [write_shard(part, folder) for part in parts]


@pytest.mark.parametrize("ranks", [1, 2, 5])
@pytest.mark.parametrize("reader", [0, 1, 3])
def test_tensors_and_pieces_are_those_that_were_written(ranks, reader, tmp_path):
    shards(tmp_path, ranks, seed=reader)
    draw = np.random.default_rng(1)
    with open_state(tmp_path, reader, max(ranks, reader + 1)) as state:
        assert sorted(state.keys()) == sorted(STATE)
        for name, value in STATE.items():
            assert torch.equal(state.tensor(name), value)
            assert state.tensor(name).dtype == value.dtype
            for _ in range(5):
                start, stop = sorted(draw.integers(0, value.numel() + 1, 2).tolist())
                assert torch.equal(state.piece(name, start, stop - start), value.flatten()[start:stop])


def test_one_file_gives_the_same(tmp_path):
    save_file(STATE, tmp_path / FILE)
    with open_state(tmp_path) as state:
        assert all(torch.equal(state.piece(name, 2, 5), x.flatten()[2:7]) for name, x in STATE.items())


def test_a_rank_that_finds_all_in_its_own_file_opens_no_others(tmp_path):
    files = shards(tmp_path, 4)
    with open_state(tmp_path, 2, 4) as state:
        for path in (files[1], files[3]):
            path.write_bytes(b"not opened")
        start = int(next(key for key in _keys(files[2]) if key.startswith("method/weight")).rpartition("@")[2])
        state.piece("method/weight", start, 1)
        with pytest.raises(ValueError, match="is damaged"), open_state(tmp_path, 2, 4) as again:
            again.tensor("method/weight")


def _keys(path):
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def test_merged_parts_are_one_file(tmp_path):
    shards(tmp_path, 3)
    done = []
    with (tmp_path / "whole").open("wb") as out:
        assert merge(tmp_path, out, lambda *numbers: done.append(numbers)) == len(STATE)
    (tmp_path / "whole").rename(tmp_path / FILE)
    with open_state(tmp_path) as state:
        assert sorted(state.keys()) == sorted(STATE)
        assert all(torch.equal(state.tensor(name), value) for name, value in STATE.items())
    assert done[-1][0] == done[-1][1] == sum(value.nbytes for value in STATE.values())


def test_a_full_disk_is_not_a_damaged_state(tmp_path):
    shards(tmp_path, 2)
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(NotMerged, match="No space left"):
        merge(tmp_path, full)


def test_a_missing_part_is_named(tmp_path):
    shards(tmp_path, 3)[1].unlink()
    with pytest.raises(ValueError, match=re.escape(f"{shard_name(1, 3)} is missing")), open_state(tmp_path):
        pass


def test_parts_of_several_states_are_refused(tmp_path):
    shards(tmp_path, 2)
    shards(tmp_path, 3)
    with pytest.raises(ValueError, match="parts of states of 2 and of 3 ranks"), open_state(tmp_path):
        pass


def test_parts_that_the_manifest_does_not_name_are_ignored(tmp_path):
    shards(tmp_path, 2)
    write_manifest(tmp_path, {"step": 1, "shards": 2})
    shards(tmp_path, 3)
    with open_state(tmp_path) as state:
        assert torch.equal(state.tensor("method/weight"), STATE["method/weight"])


def test_no_state_is_said(tmp_path):
    with pytest.raises(ValueError, match=f"holds no {FILE}"), open_state(tmp_path):
        pass


def test_pieces_that_leave_a_gap_are_missing(tmp_path):
    part = StateShard(0, 1)
    part.add("x", torch.Size([10]), 0, torch.zeros(4))
    part.add("x", torch.Size([10]), 5, torch.zeros(5))
    write_shard(part, tmp_path)
    with open_state(tmp_path) as state:
        assert len(state.piece("x", 5, 5)) == 5
        with pytest.raises(StateMismatch, match="parts of x are missing"):
            state.tensor("x")


@pytest.mark.parametrize(
    ("pieces", "tensors", "message"),
    [
        ({"x@0": torch.zeros(2)}, None, "does not list the tensors"),
        ({"x@0": torch.zeros(2)}, "[]", "does not list the tensors"),
        ({"x@0": torch.zeros(2)}, '{"x": ["F32", -2]}', "does not list the tensors"),
        ({"x@0": torch.zeros(2)}, '{"x": ["F31", 2]}', "does not list the tensors"),
        ({"x": torch.zeros(2)}, '{"x": ["F32", 2]}', "'x', which is no piece"),
        ({"x@-1": torch.zeros(2)}, '{"x": ["F32", 2]}', "which is no piece"),
        ({"x@0": torch.zeros(1, 2)}, '{"x": ["F32", 2]}', "which is no piece"),
    ],
)
def test_foreign_files_are_refused(pieces, tensors, message, tmp_path):
    save_file(pieces, tmp_path / shard_name(0, 1), None if tensors is None else {"tensors": tensors})
    with pytest.raises(StateMismatch, match=re.escape(message)), open_state(tmp_path):
        pass


def test_a_link_in_place_of_a_part_is_refused(tmp_path):
    path = shards(tmp_path, 2)[1]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="symbolic link"), open_state(tmp_path, 1, 2):
        pass


@contextmanager
def replaced_by(path, content):
    """A file that gets another content, or is deleted, before the block."""
    path.unlink() if content is None else path.write_bytes(content)
    yield


def test_the_part_that_is_damaged_or_deleted_meanwhile_is_named(tmp_path):
    second = shards(tmp_path, 2)[1]
    content = second.read_bytes()
    for remove in (False, True):
        second.write_bytes(content)
        expected = pytest.raises(ValueError, match=rf"{second.name} is {'missing' if remove else 'damaged'}")
        with expected, open_state(tmp_path) as state, replaced_by(second, None if remove else b"\xff" * 100):
            state.tensor("method/weight")
