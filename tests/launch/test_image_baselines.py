"""`--backbone pixels` and `--backbone color_histogram`: features without weights as rows of an evaluation."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from wildfern import load_backbone
from wildfern.launch import evaluate
from wildfern.launch.errors import RunError
from wildfern.launch.evaluated import baselines, check_networks, of_name
from wildfern.ssl.data import open_source
from wildfern.ssl.evaluation.preprocessing import IMAGENET_MEAN, IMAGENET_STD

CPU = torch.device("cpu")


def test_they_are_rows_beside_networks():
    names = ["pixels", "test_resnet", ("color_histogram", "none")]
    result = evaluate(on="digits", protocols={"name": "knn", "k": 1}, backbones=names, size=8)
    rows = {row["backbone"]: row for row in result.main_rows()}
    assert set(rows) == {"pixels", "test_resnet random", "color_histogram"}
    x, y = [], []
    for split in ("train", "test"):
        source = open_source("digits", split)
        images = source.read(np.arange(source.num_items))
        x.append(((images.pixels / 255 - IMAGENET_MEAN) / IMAGENET_STD).reshape(len(images), -1))
        y.append(images.labels)
    nearest = KNeighborsClassifier(1, metric="cosine").fit(x[0], y[0])
    assert rows["pixels"]["value"] == pytest.approx(nearest.score(x[1], y[1]), abs=0.003)
    assert 0.1 < rows["color_histogram"]["value"] < rows["pixels"]["value"] - 0.2


def test_labels_sizes_and_comparison():
    found = [of_name(name, None, CPU) for name in ("pixels", "color_histogram", "test_resnet", ("test_resnet", "none"))]
    models = {f"{number} {label}": model for number, (label, model, _) in enumerate(found)}
    assert list(models) == ["0 pixels", "1 color_histogram", "2 test_resnet random", "3 test_resnet random"]
    assert baselines(models) == {"3 test_resnet random": "2 test_resnet random"}
    pixels, histogram = (models[label].preprocessing for label in ("0 pixels", "1 color_histogram"))
    assert (pixels.size, histogram.size, pixels.interpolation) == (32, 32, "bilinear")
    assert (pixels.mean, pixels.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (histogram.mean, histogram.std) == ((0.0,) * 3, (1.0,) * 3)
    assert not models["0 pixels"].random
    assert of_name("pixels", 64, CPU)[1].preprocessing.size == 32  # its own, whatever other networks get


def test_a_folder_of_that_name_does_not_matter(tmp_path, monkeypatch):
    (tmp_path / "pixels").mkdir()
    monkeypatch.chdir(tmp_path)
    check_networks(["pixels"], None)


def test_weights_and_what_needs_a_network_are_refused(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"")
    for weights in ("timm", tmp_path / "x.pth"):
        with pytest.raises(
            RunError, match=r"pixels is computed from the image and has no weights, got .*; give --weights none"
        ):
            evaluate(on="digits", protocols="knn", backbones=[("pixels", weights)])
    with pytest.raises(RunError, match="attentive: Pixels has no tokens: choose a network"):
        evaluate(on="digits", protocols="attentive", backbones=["pixels"])
    with pytest.raises(ValueError, match="pixels has no weights to train or load"):
        load_backbone(("pixels", None))
