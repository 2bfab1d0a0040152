"""Images are read once, and their features are found again, whatever the memory."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wildfern.ssl.data import Groups, Images, Source, Subset, open_source
from wildfern.ssl.evaluation import (
    KNN,
    FeatureStore,
    Finetune,
    LinearProbe,
    MemoryBudget,
    Preprocessing,
    evaluate_backbones,
)
from wildfern.ssl.evaluation.labeled_chunks import labeled_chunks
from wildfern.ssl.models import Backbone

KEYS = {"train": "the train images", "test": "the test images"}


class Squares(Source):
    """Noise with a bright square at the left or right; every fifth image has no label."""

    class_names = ("left", "right")

    def __init__(self, num_items, seed, side=16):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.num_items = num_items
        self.labels = np.where(np.arange(num_items) % 5 == 4, -1, np.arange(num_items) % 2)
        self.pixels = rng.integers(0, 120, (num_items, side, side, 3)).astype(np.uint8)
        for image, label in zip(self.pixels, np.arange(num_items) % 2, strict=True):
            image[2:6, 1 + label * side // 2 : 5 + label * side // 2] += 60
        self.items_read = []
        self.groups = (Groups("place", np.arange(num_items) % 3, ("sea", "wood", "town")),)

    def read(self, items):
        self.items_read += list(items)
        return Images(self.pixels[items], self.labels[items])


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return {name: nn.Sequential(nn.Conv2d(3, 4, 5, stride=3), nn.ReLU(), nn.Flatten()) for name in ("random", "mine")}


def evaluated(networks, train, test, evaluators=None, **settings):
    evaluators = evaluators or {"linear": LinearProbe(strengths=(0.1, 0.01)), "knn": KNN(k=5)}
    settings = {"preprocessing": Preprocessing(size=16), **settings}
    return evaluate_backbones(networks, train, test, dataset="squares", evaluators=evaluators, **settings)


def test_stored_features_give_the_same_scores_without_reading_images(networks, tmp_path):
    plain = evaluated(networks, Squares(200, 0), Squares(90, 1))
    first = evaluated(networks, Squares(200, 0), Squares(90, 1), store=FeatureStore(tmp_path), data_keys=KEYS)
    train, test, store = Squares(200, 0), Squares(90, 1), FeatureStore(tmp_path)
    again = evaluated(networks, train, test, store=store, data_keys=KEYS)
    assert plain == first == again
    assert (train.items_read, test.items_read, store.found) == ([], [], 4)


def test_features_of_a_split_with_unreadable_images_are_not_kept(networks, tmp_path):
    for _ in range(2):
        train, store = Squares(200, 0), FeatureStore(tmp_path)
        train.skip("3.png", "truncated")
        result = evaluated(networks, train, Squares(90, 1), store=store, data_keys=KEYS)
        assert result.notes == {"squares": ["1 image of train could not be read: 3.png: truncated"]}
    assert store.found == 2  # of test


def test_images_that_cannot_be_read_are_left_out(tmp_path):
    for number in range(12):
        file = tmp_path / ("even" if number % 2 == 0 else "odd") / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), 20 * number, np.uint8)).save(file, compress_level=0)
    for number in (3, 8):
        file = tmp_path / ("even" if number % 2 == 0 else "odd") / f"{number}.png"
        file.write_bytes(file.read_bytes()[:-3000])
    source = open_source(f"folder:{tmp_path}", "train", labels="folders")
    for chosen in (source, Subset(source, np.arange(12))):
        chunks = labeled_chunks(chosen, "s", chunk=5)
        values = np.concatenate([chunk.pixels[:, 0, 0, 0] for chunk in chunks])
        assert sorted(values) == [20 * number for number in range(12) if number not in (3, 8)]


def test_other_weights_data_or_size_are_computed(networks, tmp_path):
    evaluated(networks, Squares(200, 0), Squares(90, 1), store=FeatureStore(tmp_path), data_keys=KEYS)
    with torch.no_grad():
        networks["mine"][0].weight += 0.01
    store = FeatureStore(tmp_path)
    evaluated(networks, Squares(200, 0), Squares(90, 1), store=store, data_keys=KEYS)
    assert store.found == 2
    for changed in ({"data_keys": {**KEYS, "test": "others"}}, {"preprocessing": Preprocessing(size=13)}):
        store, train = FeatureStore(tmp_path), Squares(200, 0)
        evaluated(networks, train, Squares(90, 1), store=store, **{"data_keys": KEYS, **changed})
        assert store.found == (2 if "data_keys" in changed else 0)


def test_images_are_read_for_the_networks_that_are_missing_and_for_evaluators_of_images(networks, tmp_path):
    one = {"random": networks["random"]}
    evaluated(one, Squares(60, 0), Squares(40, 1), store=FeatureStore(tmp_path), data_keys=KEYS)
    both = [evaluated(networks, Squares(60, 0), Squares(40, 1), store=FeatureStore(tmp_path), data_keys=KEYS)]
    both.append(evaluated(networks, Squares(60, 0), Squares(40, 1)))
    assert both[0] == both[1]
    tuned = {"knn": KNN(k=5), "finetune": Finetune(epochs=1)}
    results = [
        evaluated(networks, Squares(60, 0), Squares(40, 1), tuned, store=store, data_keys=KEYS)
        for store in (FeatureStore(tmp_path), None)
    ]
    assert results[0] == results[1]


@pytest.mark.parametrize("limit", [0, 30_000])
def test_no_memory_gives_the_same_scores(networks, limit):
    evaluators = {"linear": LinearProbe(strengths=(0.1,)), "knn": KNN(k=5), "finetune": Finetune(epochs=1)}
    store = FeatureStore(memory=MemoryBudget(limit))
    small = evaluated(networks, Squares(100, 0), Squares(50, 1), evaluators, store=store)
    assert small == evaluated(networks, Squares(100, 0), Squares(50, 1), evaluators)
    assert store.memory.used <= limit


def test_groups_are_those_of_the_labeled_test_images(networks, tmp_path):
    for _ in range(2):  # computed, then found
        result = evaluated(
            networks, Squares(200, 0), Squares(90, 1), store=FeatureStore(tmp_path), data_keys=KEYS, details=True
        )
        row = next(r for r in result.rows if r["metric"] == "worst_group_accuracy (place)" and r["backbone"] == "mine")
        details = result.details["squares"]
        codes, names = details.groups["place"]
        assert names == ("sea", "wood", "town")
        assert (codes == details.items % 3).all()
        assert (details.items % 5 != 4).all()
        right = details.predictions[row["protocol"], "mine"].ranked[:, 0] == details.labels
        assert row["value"] == pytest.approx(min(right[codes == code].mean() for code in range(3)))


def test_a_probe_of_several_stages_gets_their_features(tmp_path):
    torch.manual_seed(0)
    backbones = {"random": Backbone("resnet18")}
    seen = {}

    class Seeing(KNN):
        def __call__(self, train, test):
            seen[self.layers] = train.x.shape[1]
            return super().__call__(train, test)

    evaluators = {str(layers): Seeing() for layers in (None, 1, 2)}
    for text, evaluator in evaluators.items():
        evaluator.layers = None if text == "None" else int(text)
    for _ in range(2):
        store = FeatureStore(tmp_path)
        evaluated(backbones, Squares(30, 0, 32), Squares(20, 1, 32), evaluators, store=store, data_keys=KEYS)
        assert seen == {None: 512, 1: 512, 2: 768}
    assert store.found == 6


def test_chunks_say_which_items_they_have():
    chunks = list(labeled_chunks(Squares(23, 0), "s", chunk=10))
    assert [(chunk.first, chunk.stop) for chunk in chunks] == [(0, 10), (10, 20), (20, 23)]
    items = np.concatenate([chunk.items for chunk in chunks])
    assert items.tolist() == [item for item in range(23) if item % 5 != 4]


def test_large_images_are_made_smaller_while_they_are_read(monkeypatch):
    source = Squares(12, 0, side=40)
    monkeypatch.setattr("wildfern.ssl.evaluation.labeled_chunks.LARGE", 1000)
    [chunk] = labeled_chunks(source, "s", size=10)
    assert chunk.pixels.shape[1:3] == (10, 10)
    [whole] = labeled_chunks(source, "s")
    assert whole.pixels.shape[1:3] == (40, 40)
    assert chunk.labels.tolist() == whole.labels.tolist()


@pytest.mark.parametrize("folder", [True, False])
def test_an_error_in_the_middle_leaves_no_files(networks, tmp_path, monkeypatch, folder):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    train = Squares(600, 0)
    train.read = lambda items: 1 / 0 if items[0] > 300 else Squares.read(train, items)
    store = FeatureStore(tmp_path if folder else None, MemoryBudget(0))
    evaluators = {"knn": KNN(k=5), "finetune": Finetune(epochs=1)}
    with pytest.raises(ZeroDivisionError):
        evaluated(networks, train, Squares(40, 1), evaluators, store=store, data_keys=KEYS)
    assert list(tmp_path.iterdir()) == []
