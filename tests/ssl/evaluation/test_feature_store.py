import os

import numpy as np
import pytest
import torch
from torch import nn

from wildfern.ssl.evaluation import Features, FeatureStore, MemoryBudget, feature_key
from wildfern.ssl.evaluation.spilled_array import SpilledArray

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


def written(store, key="key", notes=None):
    writer = store.writer(key)
    for part in parts():
        writer.append(Features(torch.from_numpy(part), torch.arange(len(part))))
    return writer.finish(np.arange(15) * 2, notes)


def test_features_are_found_again_with_items_and_notes(tmp_path):
    first = written(FeatureStore(tmp_path), notes={"skipped": {"a.png": "truncated"}})
    store = FeatureStore(tmp_path)
    found = store.find("key")
    torch.testing.assert_close(found.features.x, torch.from_numpy(np.concatenate(parts())), rtol=0, atol=0)
    assert torch.equal(found.features.x, first.x)
    assert torch.equal(found.features.y, first.y)
    assert found.items.tolist() == list(range(0, 30, 2))
    assert found.notes == {"skipped": {"a.png": "truncated"}}
    assert store.found == 1
    assert store.find("other") is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_features_without_a_key_or_folder_are_not_kept(tmp_path):
    written(FeatureStore(tmp_path), None)
    written(FeatureStore(None))
    assert list(tmp_path.iterdir()) == []
    assert FeatureStore(None).find("key") is None


@pytest.mark.parametrize("damage", ["rows", "features.json", "items.npy", "labels.npy"])
def test_incomplete_features_are_not_found_and_replaced(tmp_path, damage):
    written(FeatureStore(tmp_path))
    file = tmp_path / "key" / damage
    file.write_bytes(file.read_bytes()[:-7])
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


def test_the_key_knows_weights_network_data_and_settings():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    key = feature_key(network, "data", 32)
    assert key == feature_key(network, "data", 32)
    others = [feature_key(network, "data", 64), feature_key(network, "other", 32)]
    others.append(feature_key(nn.Sequential(*network, nn.ReLU()), "data", 32))
    network[1].running_mean += 1e-6
    others.append(feature_key(network, "data", 32))
    assert len({key, *others}) == 5
