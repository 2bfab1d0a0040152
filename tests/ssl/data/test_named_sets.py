"""Datasets by name, and the registry of sources."""

import inspect
import pickle
import struct
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from wildfern.generators import ImageBatch
from wildfern.registry import GENERATORS, location_parameter, register
from wildfern.ssl.data import SOURCES, DataError, open_source, source_signature
from wildfern.ssl.data.splits import stratified_split
from wildfern.ssl.data.torchvision_sets import TORCHVISION_SETS


def test_digits_have_a_fixed_split_by_class():
    from sklearn.datasets import load_digits

    train, test = open_source("digits"), open_source("digits", "test")
    assert (train.num_items, test.num_items) == (1258, 539)
    whole = np.bincount(load_digits().target)
    np.testing.assert_array_equal(np.bincount(test.labels), np.rint(0.3 * whole))
    np.testing.assert_array_equal(np.bincount(train.labels) + np.bincount(test.labels), whole)
    images = train.read([0, 500, 1257])
    assert images.pixels.shape == (3, 8, 8, 3)
    assert train.read(np.arange(1258)).pixels.max() == 255
    both = np.concatenate([s.read(np.arange(s.num_items)).pixels[..., 0] for s in (train, test)]).reshape(1797, 64)
    expected = np.rint(load_digits().data * 255 / 16).astype(np.uint8)
    np.testing.assert_array_equal(both[np.lexsort(both.T)], expected[np.lexsort(expected.T)])
    assert train.class_names == list("0123456789")
    assert (
        test.labels[:12].tolist()
        == load_digits().target[stratified_split(load_digits().target, "test", "digits", 0.3)][:12].tolist()
    )


def test_the_digits_split_never_moves():
    labels = np.arange(30) % 3
    assert stratified_split(labels, "test", "x", 0.2).tolist() == [2, 4, 12, 16, 17, 21]


def test_every_torchvision_dataset_exists_in_torchvision():
    datasets = pytest.importorskip("torchvision.datasets")
    for parts in TORCHVISION_SETS.values():
        assert hasattr(datasets, parts.cls)


@pytest.mark.parametrize("name", sorted(TORCHVISION_SETS))
def test_nothing_is_downloaded_without_request(name, tmp_path):
    for root in (tmp_path / "gone", tmp_path):
        with pytest.raises(DataError, match=f"{name} is not in {root}; set download=true"):
            open_source(name, root=str(root))


def fake_torchvision(monkeypatch, **classes):
    module = SimpleNamespace(**classes)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=module))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)


class FakeSet:
    """Torchvision's shape of a set: (PIL image, label) by number."""

    def __init__(self, root, download, split=None, count=10):
        self.shift = {"train": 0, "val": 100, "test": 200, None: 0}[split]
        self._labels = [number % 2 for number in range(count)]
        self.classes = ["even", "odd"]

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, number):
        return Image.new("L", (5, 5), self.shift + number), self._labels[number]


def test_train_and_val_parts_are_concatenated(monkeypatch, tmp_path):
    fake_torchvision(monkeypatch, DTD=FakeSet)
    train, test = open_source("dtd", root=str(tmp_path)), open_source("dtd", "test", root=str(tmp_path))
    assert train.read(np.arange(20)).pixels[:, 0, 0, 0].tolist() == [*range(10), *range(100, 110)]
    assert test.read([0, 9]).pixels[:, 0, 0, 0].tolist() == [200, 209]
    assert train.read([1, 10]).labels.tolist() == [1, 0]
    assert train.class_names == ["even", "odd"]


def test_datasets_without_a_test_split_hold_out_a_share(monkeypatch, tmp_path):
    fake_torchvision(monkeypatch, EuroSAT=lambda root, download: FakeSet(root, download, count=40))
    train, test = (open_source("eurosat", split, root=str(tmp_path)) for split in ("train", "test"))
    seen = [s.read(np.arange(s.num_items)).pixels[:, 0, 0, 0].tolist() for s in (train, test)]
    assert sorted(seen[0] + seen[1]) == list(range(40))
    assert np.bincount(test.labels).tolist() == [6, 6]
    assert [value % 2 for value in seen[1]] == test.labels.tolist()


def test_mnist_from_its_own_files(tmp_path):
    pytest.importorskip("torchvision")
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 6), ("t10k", 3)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        idx3, idx1 = (struct.pack(">4B", 0, 0, 8, d) + struct.pack(">3I", count, 28, 28)[: 4 * d] for d in (3, 1))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx3 + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx1 + bytes(range(count)))
    test = open_source("mnist", "test", root=str(tmp_path))
    images = test.read([2, 0])
    np.testing.assert_array_equal(images.pixels, np.repeat(pixels[[2, 0], :, :, None], 3, 3))
    assert (test.num_items, images.labels.tolist(), test.class_names[2]) == (3, [2, 0], "2 - two")
    assert open_source("mnist", root=str(tmp_path)).num_items == 6


def test_hugging_face_reads_a_local_dataset_like_one_of_the_hub(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    encoded = [Image.new("RGB", (3, 3), (value, 0, 0)) for value in range(4)]
    table = datasets.Dataset.from_dict({"image": encoded, "label": [0, 1, 1, 0]}, features)
    table.to_parquet(tmp_path / "set/validation.parquet")
    source = open_source(f"hf:{tmp_path}/set", "test")
    images = source.read([3, 1])
    assert (images.pixels[:, 0, 0, 0].tolist(), images.labels.tolist()) == ([3, 1], [0, 1])
    assert source.class_names == ["ant", "bee"]
    with pytest.raises(DataError, match="has no train split; it has validation"):
        open_source(f"hf:{tmp_path}/set")


def test_hugging_face_splits_labels_and_copies(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = {"image": datasets.Image(), "tags": datasets.Sequence(datasets.ClassLabel(names=["ant", "bee", "cat"]))}
    columns = {"image": [Image.new("RGB", (3, 3), (v, 0, 0)) for v in range(20)], "tags": [[0, 1], [2], [], [1]] * 5}
    datasets.Dataset.from_dict(
        columns | {"id": [10**9, 5, -1, 5] * 5}, datasets.Features(features | {"id": datasets.Value("int64")})
    ).to_parquet(tmp_path / "set/train.parquet")
    source = open_source(f"hf:{tmp_path}/set", label_column="tags")
    assert source.class_names == ["ant", "bee", "cat"]
    assert source.read([0, 1, 2]).labels.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(np.arange(20)).pixels, source.read(np.arange(20)).pixels)
    by_id = open_source(f"hf:{tmp_path}/set", label_column="id")
    assert (by_id.class_names, by_id.read([0, 1, 2]).labels.tolist()) == (["5", "1000000000"], [1, 0, -1])
    parts = [open_source(f"hf:{tmp_path}/set", s, test_fraction=0.3) for s in ("train", "test")]
    assert sum(part.num_items for part in parts) == 20
    assert parts[1].split_words == "split train, about 30 % of the rows, by a hash of their number"


def test_hugging_face_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"hf:org/name needs the package datasets.*wildfern\[hf\]"):
        open_source("hf:org/name")


def test_the_registry_knows_the_nearest_name(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="unknown source 'cifar11'; did you mean 'cifar10"):
        open_source("cifar11")
    with pytest.raises(DataError, match="did you mean 'folder'"):
        open_source("foldr:x")
    with pytest.raises(DataError, match="needs a path: folder:PATH"):
        open_source("folder")
    with pytest.raises(DataError, match="needs a pattern: webdataset:PATTERN"):
        open_source("webdataset:")
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="write the kind of a path before it: folder:photos"):
        open_source("photos")
    with pytest.raises(DataError, match="has no argument 'label'; did you mean 'labels'"):
        open_source("folder:photos", label="folders")
    with pytest.raises(DataError, match="has no argument 'x'; it takes none"):
        open_source("digits", x=1)
    with pytest.raises(DataError, match="split is train or test"):
        open_source("digits", "val")


def test_every_signature_can_be_checked():
    for name, constructor in SOURCES.items():
        takes_location = location_parameter(constructor) is not None
        assert source_signature(f"{name}:x" if takes_location else name) is constructor
        for parameter in inspect.signature(constructor).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                assert parameter.annotation is not parameter.empty
                assert not takes_location or parameter.default is not parameter.empty


def test_a_generator_opens_by_its_name(request):
    class Plain:
        num_classes = None

        def __init__(self, *, size: int = 8, seed: int = 0) -> None:
            self.size = size

        def batch(self, indices):
            return ImageBatch(np.full((len(indices), self.size, self.size, 3), indices[0]))

    register("generator", "plain")(Plain)
    request.addfinalizer(lambda: GENERATORS.forget(GENERATORS.origin("plain")))
    source = open_source("plain", size=6)
    assert (source.num_items, source.read([3]).pixels.shape) == (None, (1, 6, 6, 3))
    with pytest.raises(DataError, match="did you mean 'size'"):
        open_source("plain", siz=3)


def test_importing_the_package_is_light():
    heavy = ["torch", "torchvision", "sklearn", "pyarrow", "datasets"]
    program = f"import sys, wildfern.ssl.data; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
