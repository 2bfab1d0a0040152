"""Every source works in other processes: locks, caches and open readers are made again there."""

import pickle
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from wildfern.generators import ImageBatch
from wildfern.ssl.augmentation.reference_images import ReferenceImages
from wildfern.ssl.data import Mixture, SyntheticSource, open_source
from wildfern.ssl.data.stream_dataset import stream_dataset


@pytest.fixture
def files(tmp_path) -> Path:
    """Four images as folder/, train.parquet and a.tar."""
    for number in range(4):
        path = tmp_path / f"folder/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    images = sorted((tmp_path / "folder").rglob("*.png"))
    table = pa.table({"image": [path.read_bytes() for path in images], "label": [7, 8, 9, 7]})
    parquet.write_table(table, tmp_path / "train.parquet")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in images:
            (path.with_suffix(".cls")).write_text(path.parent.name)
            tar.add(path, path.name)
            tar.add(path.with_suffix(".cls"), path.with_suffix(".cls").name)
    return tmp_path


SOURCES = {
    "folder": ("folder:{}/folder", {"labels": "folders"}),
    "parquet": ("parquet:{}/train.parquet", {}),
    "webdataset": ("webdataset:{}/a.tar", {}),
    "digits": ("digits", {}),
}


def assert_same(copy, source) -> None:
    ours, theirs = source.read([2, 0, 1]), copy.read([2, 0, 1])
    np.testing.assert_array_equal(theirs.pixels, ours.pixels)
    assert (theirs.labels is None) == (ours.labels is None)
    if ours.labels is not None:
        np.testing.assert_array_equal(theirs.labels, ours.labels)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("name", SOURCES)
def test_a_copy_of_a_source_reads_the_same(files, name, used):
    location, arguments = SOURCES[name]
    source = open_source(location.format(files), **arguments)
    source.note("for the user")
    source.skip("x.png", "empty file")
    if used:
        source.read([0])
    copy = pickle.loads(pickle.dumps(source))
    assert_same(copy, source)
    assert (copy.class_names, copy.num_items, copy.split_words) == (
        source.class_names,
        source.num_items,
        source.split_words,
    )
    copy.note("once more")
    copy.skip("y.png", "empty file")
    assert copy.notes == [*source.notes, "once more"]
    assert copy.skipped == {**source.skipped, "y.png": "empty file"}


def test_a_copy_leaves_out_what_was_read(files):
    source = open_source(f"parquet:{files}")
    fresh = len(pickle.dumps(source))
    source.read(np.arange(4))
    assert source._rows._kept
    assert source._filled.all()
    copy = pickle.loads(pickle.dumps(source))
    assert not copy._rows._kept
    assert copy._cache is None
    assert len(pickle.dumps(source)) < fresh + 1000


class Stream:
    """Endless gray images."""

    size, num_classes = 4, 3

    def batch(self, indices):
        images = np.broadcast_to((indices % 256).astype(np.uint8)[:, None, None, None], (len(indices), 4, 4, 3))
        return ImageBatch(images, indices % 3)


def test_a_copy_of_a_stream_draws_the_same():
    source = SyntheticSource(Stream())
    assert_same(pickle.loads(pickle.dumps(source)), source)
    dataset = stream_dataset(Stream(), 4)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3]["images"], dataset[3]["images"])


def test_mixtures_reference_images_and_torchvision_sets(files, monkeypatch):
    parts = [open_source(f"folder:{files}/folder"), open_source(f"parquet:{files}"), open_source("digits")]
    mixture = Mixture([(part, 1.0) for part in parts], 3)
    before = mixture.read(np.arange(12))
    for one in (mixture, Mixture([(parts[0], 1.0)], 0)):
        copy = pickle.loads(pickle.dumps(one))
        for ours, theirs in zip(one.read(np.arange(12)).pixels, copy.read(np.arange(12)).pixels, strict=True):
            np.testing.assert_array_equal(theirs, ours)
    assert len(before) == 12
    references = ReferenceImages(parts[0], 4)
    assert torch.equal(pickle.loads(pickle.dumps(references)).read(np.arange(3)), references.read(np.arange(3)))
    module = SimpleNamespace(DTD=Named)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=module))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    source = open_source("dtd", root=str(files))
    assert_same(pickle.loads(pickle.dumps(source)), source)


class Named:
    """Torchvision's shape of a set."""

    classes = ("even", "odd")

    def __init__(self, root, download, split):
        self._labels = [0, 1, 0]

    def __len__(self):
        return 3

    def __getitem__(self, number):
        return Image.new("L", (5, 5), number), self._labels[number]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_data_loader_with_workers(files, start):
    mixture = Mixture([(open_source(f"parquet:{files}"), 1.0)], 0)
    expected = mixture.read(np.arange(4)).pixels
    loader = DataLoader(range(4), batch_size=2, collate_fn=mixture.read, num_workers=1, multiprocessing_context=start)
    np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in loader]), expected)
