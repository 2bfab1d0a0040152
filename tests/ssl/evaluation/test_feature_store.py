import errno
import os
import time

import numpy as np
import pytest
import torch
from torch import nn

from wildfern.ssl.evaluation import Features, FeatureStore, MemoryBudget, feature_key
from wildfern.ssl.evaluation.spilled_array import SpilledArray
from wildfern.ssl.models import Backbone

GIB = 2**30


def parts(seed=0, sizes=(5, 3, 7), width=4):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, width)).astype(np.float32) for n in sizes]


@pytest.mark.parametrize("limit", [GIB, 5 * 16, 0])
def test_rows_are_the_same_in_memory_and_in_a_file(limit, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    budget = MemoryBudget(limit)
    array = SpilledArray(budget)
    for part in parts():
        array.append(part)
        assert budget.used <= limit
    whole = array.finish()
    np.testing.assert_array_equal(whole, np.concatenate(parts()))
    assert bool(list(tmp_path.iterdir())) == (limit < GIB)
    assert budget.used == (15 * 16 if limit == GIB else 0)
    del whole
    assert list(tmp_path.iterdir()) == []
    assert budget.used == 0


def test_an_array_that_is_given_up_frees_its_memory_and_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    budget = MemoryBudget(6 * 16)
    array = SpilledArray(budget)
    array.append(parts()[0])
    assert budget.used == 80
    array.append(parts()[1])
    assert list(tmp_path.iterdir())
    array.discard()
    assert (budget.used, list(tmp_path.iterdir())) == (0, [])


def test_bytes_of_images_are_kept_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 3), np.uint8)
    array = SpilledArray(MemoryBudget(0))
    array.append(images[:2])
    array.append(images[2:])
    np.testing.assert_array_equal(array.finish(), images)


def test_a_budget_is_at_least_0():
    with pytest.raises(ValueError, match="at least 0"):
        MemoryBudget(-1)


def written(store, key="key", keep=True):
    writer = store.writer(key)
    for part in parts():
        writer.append(Features(torch.from_numpy(part), torch.arange(len(part))))
    return writer.finish(np.arange(15) * 2, keep)


def test_features_are_found_again_with_their_items(tmp_path):
    first = written(FeatureStore(tmp_path))
    store = FeatureStore(tmp_path)
    found = store.find("key")
    torch.testing.assert_close(found.features.x, torch.from_numpy(np.concatenate(parts())), rtol=0, atol=0)
    assert torch.equal(found.features.x, first.x)
    assert torch.equal(found.features.y, first.y)
    assert found.items.tolist() == list(range(0, 30, 2))
    assert store.found == 1
    assert store.find("other") is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_features_without_a_key_or_folder_are_not_kept(tmp_path):
    written(FeatureStore(tmp_path), None)
    written(FeatureStore(None))
    written(FeatureStore(tmp_path), keep=False)
    assert list(tmp_path.iterdir()) == []
    assert FeatureStore(None).find("key") is None


@pytest.mark.parametrize("name", ["rows", "features.json", "items.npy", "labels.npy"])
@pytest.mark.parametrize("damage", [lambda c: c[:-7], lambda c: b"", lambda c: bytes(len(c)), lambda c: b"PK" + c[2:]])
def test_damaged_features_are_not_found_and_replaced(tmp_path, name, damage):
    written(FeatureStore(tmp_path))
    file = tmp_path / "key" / name
    file.write_bytes(damage(file.read_bytes()))
    assert FeatureStore(tmp_path).find("key") is None
    written(FeatureStore(tmp_path))
    assert FeatureStore(tmp_path).find("key") is not None


def test_a_writer_that_is_given_up_leaves_nothing(tmp_path):
    writer = FeatureStore(tmp_path).writer("key")
    writer.append(Features(torch.zeros(2, 3), torch.zeros(2)))
    writer.discard()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no images"):
        FeatureStore(None).writer().finish(np.empty(0, np.int64))


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    store = FeatureStore(tmp_path)
    for number in range(2):
        written(store, f"key{number}")
        os.utime(tmp_path / f"key{number}", (number + 1, number + 1))
    store.disk = 2 * sum(file.stat().st_size for file in (tmp_path / "key0").iterdir())
    assert store.find("key0") is not None  # and is now the last one used
    written(store, "key2")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["key0", "key2"]


def test_files_of_killed_processes_are_removed_after_a_day(tmp_path):
    for name, age in (("old", 100_000), ("new", 100)):
        (tmp_path / f".partial_{name}").mkdir()
        os.utime(tmp_path / f".partial_{name}", (time.time() - age,) * 2)
    written(FeatureStore(tmp_path))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".partial_new", "key"]


def test_a_folder_that_cannot_be_written_to_is_still_read(tmp_path, monkeypatch):
    written(FeatureStore(tmp_path))

    def refuse(**given):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("wildfern.ssl.evaluation.feature_store.tempfile.mkdtemp", refuse)
    store = FeatureStore(tmp_path)
    assert store.find("key") is not None
    first = written(store, "other")
    assert len(first) == 15
    assert store.problem == f"{tmp_path}: Read-only file system"


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    writer = FeatureStore(tmp_path).writer("key")

    def full(part):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer._rows, "append", full)
    with pytest.raises(ValueError, match=r"cannot be kept in .*: No space left on device; another --cache DIR"):
        writer.append(Features(torch.zeros(2, 3), torch.zeros(2)))
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_the_key_knows_weights_network_data_and_settings():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    key = feature_key(network, "data", 32)
    assert key == feature_key(network, "data", 32)
    others = [feature_key(network, "data", 64), feature_key(network, "other", 32)]
    others.append(feature_key(nn.Sequential(*network, nn.ReLU()), "data", 32))
    network[1].pooling = "avg"  # as an attribute that repr does not show
    others.append(feature_key(network, "data", 32))
    network[1].running_mean += 1e-6
    others.append(feature_key(network, "data", 32))
    assert len({key, *others}) == 6
    heads = [feature_key(Backbone("test_vit", num_heads=heads), "data") for heads in (1, 2)]
    assert heads[0] != heads[1]
