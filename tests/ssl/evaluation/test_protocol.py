import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from wildfern.ssl.data import Images
from wildfern.ssl.evaluation import Evaluation, evaluate_backbones, extract_features, knn, linear_probe


class Stripes:
    """A labeled source: stripes along one axis or the other; every seventh image has no label, sizes may differ."""

    class_names = ("rows", "columns")
    num_classes: int | None = 2

    def __init__(self, num_items, seed, ragged=False):
        rng = np.random.default_rng(seed)
        self.num_items, self.ragged = num_items, ragged
        self.labels = np.arange(num_items) % 2
        self.pixels = rng.integers(0, 200, (num_items, 12, 12, 3))
        self.pixels[self.labels == 0, ::2] += 50
        self.pixels[self.labels == 1, :, ::2] += 50
        self.labels[::7] = -1
        self.pixels = self.pixels.astype(np.uint8)

    def read(self, items):
        pixels = self.pixels[items]
        if self.ragged:
            pixels = [image[: 12 - i % 2] for i, image in zip(items, pixels, strict=True)]
        return Images(pixels, self.labels[items])


@pytest.fixture
def backbones():
    torch.manual_seed(0)
    edges = nn.Conv2d(3, 2, 2, bias=False)
    edges.weight.data[:] = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]], [[1.0, -1.0], [1.0, -1.0]]])[:, None]

    class Energy(nn.Module):
        def forward(self, x):
            return x.square().mean((2, 3))

    return {
        "pretrained": nn.Sequential(edges, Energy()),
        "untrained": nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    }


def printed(evaluation):
    console = Console(width=160, file=io.StringIO())
    console.print(evaluation.table())
    return console.file.getvalue()


def test_rows_hold_what_the_protocols_give_and_the_baseline_comes_first(backbones):
    train, test = Stripes(140, 0), Stripes(70, 1)
    evaluation = evaluate_backbones(backbones, train, test, dataset="stripes", few_shot=(2,), seeds=2)
    assert [(row["protocol"], row["backbone"]) for row in evaluation.rows] == [
        (protocol, name)
        for protocol in ("linear", "knn", "linear, 2 a class", "knn, 2 a class")
        for name in ("untrained", "pretrained")
    ]
    for name, backbone in backbones.items():
        features = [
            extract_features(backbone, [(source.pixels[source.labels >= 0], source.labels[source.labels >= 0])])
            for source in (train, test)
        ]
        for protocol, by_hand in (("linear", linear_probe), ("knn", knn)):
            row = next(row for row in evaluation.rows if row["backbone"] == name and row["protocol"] == protocol)
            assert row["accuracy"] == by_hand(*features).accuracy
            assert row["std"] is None
    shots = [row for row in evaluation.rows if "a class" in row["protocol"]]
    assert all(row["std"] >= 0 for row in shots)


def test_json_survives_and_differences_are_in_points(backbones):
    evaluation = evaluate_backbones(backbones, Stripes(140, 0), Stripes(70, 1), dataset="stripes", protocols=("knn",))
    stored = json.loads(json.dumps(evaluation.as_json(), allow_nan=False))
    assert set(stored["rows"][0]) == {"dataset", "backbone", "protocol", "accuracy", "std", "detail", "difference"}
    untrained, pretrained = stored["rows"]
    assert untrained["difference"] is None
    assert pretrained["difference"] == pytest.approx(100 * (pretrained["accuracy"] - untrained["accuracy"]))
    assert stored["baseline"] == "untrained"
    assert "cosine" in stored["protocols"]["knn"]


def test_the_table_names_protocols_in_words(backbones):
    text = printed(evaluate_backbones(backbones, Stripes(140, 0), Stripes(70, 1), dataset="stripes"))
    for words in (
        "L2-regularized logistic regression",
        "20% of train held out",
        "k=20",
        "train as bank",
        "baseline",
        "stripes",
    ):
        assert words in text


def test_finetuning_ragged_images_and_several_data_sets_add_up(backbones):
    train, test = Stripes(40, 0, ragged=True), Stripes(20, 1, ragged=True)
    first = evaluate_backbones(
        backbones, train, test, dataset="one", size=10, protocols=("finetune",), finetune_epochs=1
    )
    second = evaluate_backbones(backbones, train, test, dataset="two", size=10, protocols=("knn",))
    both = first + second
    assert [row["dataset"] for row in both.rows] == ["one", "one", "two", "two"]
    assert set(both.protocols) == {"finetune", "knn"}
    other = evaluate_backbones(backbones, train, test, dataset="two", size=10, protocols=("knn",), k=3)
    with pytest.raises(ValueError, match="do not add up"):
        both + other
    with pytest.raises(ValueError, match="do not add up"):
        both + Evaluation((), {}, baseline="random")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_classes": None}, r"stripes \(train\): these images have no labels"),
        ({"num_items": None}, "endless"),
        ({"labels": np.full(40, -1)}, "not one image has a label"),
        ({"labels": np.full(40, 1)}, "of one class"),
    ],
)
def test_sources_that_cannot_be_probed_say_why(backbones, change, words):
    train, test = Stripes(40, 0), Stripes(20, 1)
    for name, value in change.items():
        setattr(train, name, value)
    with pytest.raises(ValueError, match=words):
        evaluate_backbones(backbones, train, test, dataset="stripes")


def test_a_baseline_and_known_protocols_are_needed(backbones):
    sources = Stripes(40, 0), Stripes(20, 1)
    with pytest.raises(ValueError, match="no backbone named 'untrained'"):
        evaluate_backbones({"pretrained": backbones["pretrained"]}, *sources, dataset="stripes")
    with pytest.raises(ValueError, match="'lineal'; there are linear, knn, finetune"):
        evaluate_backbones(backbones, *sources, dataset="stripes", protocols=("lineal",))
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate_backbones(backbones, *sources, dataset="stripes", protocols=())
