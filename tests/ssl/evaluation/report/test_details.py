"""Sections of the report on single test images, and the first layer's filters."""

import base64
import io
import json
import re
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix

from wildfern.ssl.evaluation import report_page
from wildfern.ssl.evaluation.metrics.calibration import calibration_error
from wildfern.ssl.evaluation.metrics.classification_scores import wilson_interval
from wildfern.ssl.evaluation.report.classes import class_table, confusions, group_tables
from wildfern.ssl.evaluation.report.filters import filters_png, first_filters
from wildfern.ssl.evaluation.report.image_details import (
    ImageDetails,
    Neighbors,
    Predicted,
    Thumbnails,
    details_path,
    write_details,
)
from wildfern.ssl.evaluation.report.images import is_small_jpeg, mistakes, usable_jpegs
from wildfern.ssl.evaluation.report.map import map_figure
from wildfern.ssl.evaluation.report.positions import positions
from wildfern.ssl.evaluation.report.reliability import confidence_bins, reliability_diagram

HOSTILE = "</script><script>alert(1)</script>\"'&"
NAMES = ("ant", "bee", HOSTILE)


def jpeg(side: int = 4, value: int = 0) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (side, side), (value, value, value)).save(content, "jpeg")
    return content.getvalue()


def make(n: int = 60, **changes) -> ImageDetails:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    guesses = np.where(rng.random(n) < 0.7, labels, (labels + 1) % 3)
    features = rng.normal(size=(n, 5)).astype(np.float32)
    found = {
        "labels": labels,
        "items": np.arange(n) * 10,
        "class_names": NAMES,
        "predictions": {
            ("knn", "random"): Predicted(((labels + 1) % 3)[:, None]),
            ("knn", "pretrained"): Predicted(guesses[:, None], rng.random(n).astype(np.float32)),
        },
        "train_counts": np.array([5, 6, 7]),
        "map_images": np.arange(n),
        "map_features": {"random": features[:, ::-1].copy(), "pretrained": features},
        "thumbnails": Thumbnails(np.arange(n), (jpeg(),) * n),
        "train_thumbnails": Thumbnails(np.arange(4), (jpeg(),) * 4),
        "neighbors": Neighbors(
            np.arange(2), {"pretrained": np.array([[0, 1], [2, 3]])}, {"pretrained": np.eye(2, dtype=int)}
        ),
        "groups": {HOSTILE: (np.arange(n) % 2, ("left", HOSTILE))},
    }
    return ImageDetails("insects", **{**found, **changes})


@pytest.fixture
def folder(tmp_path):
    """A run with scores on insects."""
    row = {"dataset": "insects", "protocol": "knn", "metric": "accuracy", "value": 0.5}
    rows = [row | {"backbone": name} for name in ("random", "pretrained")]
    (tmp_path / "recipe.yaml").write_text("name: fern\n")
    (tmp_path / "evaluation.json").write_text(json.dumps({"baseline": "random", "protocols": {}, "rows": rows}))
    return tmp_path


def cells(html: str) -> list[list[str]]:
    """Texts of the rows of the tables in a part."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html)
    return [
        [re.sub("<[^>]+>", " ", cell).strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows
    ]


def test_a_page_has_all_sections_and_escapes_the_names(folder):
    write_details(folder, make())
    page = report_page([folder])
    for title in ("Test images of insects", "Map of insects"):
        assert f"<h2>{title}</h2>" in page
    for heading in (
        "Accuracy by class",
        "Confusions of pretrained",
        "Confidence of pretrained",
        "Most confident mistakes",
    ):
        assert f"<h3>{heading}" in page
    assert "Nearest train images" in page
    assert "alert(1)</script" not in page
    assert "<script>" not in page
    wrong = make().predictions["knn", "pretrained"].ranked[:, 0] != make().labels
    assert page.count('src="data:image/jpeg;base64,') == wrong.sum() + 2 + 4  # mistakes, queries, neighbors


def test_details_of_too_many_images_are_not_shown(folder, monkeypatch):
    monkeypatch.setattr("wildfern.ssl.evaluation.report.details.MOST_IMAGES", 59)
    write_details(folder, make())
    assert "details of 60 test images, more than 59, are not shown" in report_page([folder])


def test_nothing_is_shown_of_a_run_without_details(folder):
    page = report_page([folder])
    assert "Test images" not in page
    assert "report_map" not in page


def test_classes_are_listed_worst_first_with_wilson_intervals():
    details = make()
    by_backbone = {name: details.predictions["knn", name] for name in ("pretrained", "random")}
    rows = cells(class_table(details, by_backbone))[1:]
    right = details.predictions["knn", "pretrained"].ranked[:, 0] == details.labels
    expected = sorted((right[details.labels == label].mean(), label) for label in range(3))
    for (accuracy, label), row in zip(expected, rows, strict=True):
        low, high = wilson_interval(round(20 * accuracy), 20)
        assert row[1:3] == ["20", str(5 + label)]
        assert row[4] == f"{100 * accuracy:.1f} % {100 * low:.1f} to {100 * high:.1f}"
        assert row[6].startswith("0.0 %")


def test_the_confusion_matrix_is_that_of_scikit_learn():
    details = make()
    found = details.predictions["knn", "pretrained"]
    rows = cells(confusions(details, found))[1:4]
    counts = [[int(cell or 0) for cell in row[1:]] for row in rows]
    np.testing.assert_array_equal(counts, confusion_matrix(details.labels, found.ranked[:, 0]))
    unlabeled = make(labels=np.full(60, -1))
    assert confusions(unlabeled, found) == ""


def test_many_classes_have_their_most_frequent_confusions():
    labels = np.arange(60)
    details = make(labels=labels, class_names=None)
    guesses = labels.copy()
    guesses[7] = 3
    found = confusions(details, Predicted(guesses[:, None]))
    assert "matrix" not in found
    assert cells(found)[1][:3] == ["7", "3", "1 of 1"]


def test_groups_have_their_accuracy():
    details = make()
    (heading, html), *others = group_tables(details, {"random": details.predictions["knn", "random"]}).items()
    assert (len(others), "<script" in heading + html) == (0, False)
    assert cells(html)[1][:2] == ["left", "30"]


def test_bins_and_error_of_the_reliability_diagram():
    import torch

    rng = np.random.default_rng(1)
    confidence = rng.random(500).astype(np.float32)
    right = rng.random(500) < confidence**2
    bins = confidence_bins(confidence, right)
    assert sum(one.n for one in bins) == 500
    error = sum(one.n * abs(one.right / one.n - one.confidence) for one in bins) / 500
    expected = calibration_error(torch.from_numpy(confidence), torch.from_numpy(right))
    assert error == pytest.approx(expected, abs=1e-6)
    figure = reliability_diagram(confidence, right)
    assert f"Expected calibration error {100 * expected:.1f} %" in figure
    assert "overconfident by" in figure
    assert figure.count("<circle") == len(bins)
    assert confidence_bins(np.array([0.0, 1.0], np.float32), np.array([False, True]))[1].low == pytest.approx(14 / 15)


def test_mistakes_are_those_with_the_highest_confidence():
    details = make()
    found = details.predictions["knn", "pretrained"]
    wrong = np.flatnonzero(found.ranked[:, 0] != details.labels)
    wrong = wrong[np.argsort(-found.confidence[wrong])]
    html = mistakes(details, found, {int(place): "QUJD" for place in wrong[1:]})
    assert re.findall(r"image (\d+)\" title", html) == [str(10 * place) for place in wrong[1:25]]


@pytest.mark.parametrize(
    ("content", "usable"),
    [
        (jpeg(), True),
        (b"", False),
        (b"\xff\xd8\xff" + b"<script>", False),
        (b"GIF89a" + jpeg(), False),
        (jpeg(600), False),
        (jpeg() + bytes(2**16), False),
    ],
)
def test_only_small_jpegs_are_embedded(content, usable):
    assert is_small_jpeg(content) == usable
    assert bool(usable_jpegs(Thumbnails(np.array([3]), (content,)))) == usable


def test_positions_are_the_first_two_principal_components():
    rows = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32) * [5, 4, 1, 1, 1, 1]
    found = positions(rows, "auto")
    expected = PCA(2).fit_transform(rows)
    signs = np.sign((found.points * expected).sum(0))
    np.testing.assert_allclose(found.points * signs, expected, atol=1e-6)
    share = PCA(2).fit(rows).explained_variance_ratio_.sum()
    assert found.words.startswith(f"the first two principal components ({share:.0%} of the variance")
    np.testing.assert_array_equal(positions(-rows, "pca").points, -found.points)
    assert positions(rows[:, :1], "pca").points[:, 1].tolist() == [0] * 50
    assert not positions(np.zeros((3, 4), np.float32), "pca").points.any()


def test_a_map_has_its_numbers_in_the_order_of_the_images():
    details = make(map_images=np.arange(59, -1, -1))
    figure = map_figure(details, ["pretrained", "random"], {0: "QUJD"}, "auto")
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', figure)[1])

    def numbers(text, kind):
        return np.frombuffer(base64.b64decode(text), kind)

    np.testing.assert_array_equal(numbers(data["labels"], "<u2"), details.labels[::-1] + 1)
    np.testing.assert_array_equal(numbers(data["items"], "<u4"), details.items[::-1])
    assert [(one["protocol"], one["backbone"]) for one in data["predictions"]] == [
        ("knn", "pretrained"),
        ("knn", "random"),
    ]
    guesses = details.predictions["knn", "pretrained"].ranked[::-1, 0]
    np.testing.assert_array_equal(numbers(data["predictions"][0]["guesses"], "<u2"), guesses + 1)
    assert data["thumbnails"] == {"59": "QUJD"}
    assert [one["name"] for one in data["backbones"]] == ["pretrained", "random"]
    points = numbers(data["backbones"][0]["points"], "<u2").reshape(-1, 2).astype(float)
    expected = positions(details.map_features["pretrained"], "pca").points
    scale = np.ptp(expected, 0).max() / 65535
    np.testing.assert_allclose((points - points[0]) * scale, expected - expected[0], atol=scale)
    assert data["names"][2] == HOSTILE
    assert map_figure(make(map_images=None, map_features={}), ["pretrained"], {}, "auto") == ""


def test_the_way_to_compute_positions_is_checked(folder, monkeypatch):
    with pytest.raises(ValueError, match="the map of a report is by auto, pca, umap; got 'tsne'"):
        report_page([folder], embedding="tsne")
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ValueError, match="needs the package umap-learn"):
        report_page([folder], embedding="umap")


@pytest.mark.parametrize(
    "damage", [lambda content: content[:100], lambda content: b"\xff" * 8 + content, lambda content: b""]
)
def test_damaged_details_are_told(folder, damage):
    path = write_details(folder, make())
    path.write_bytes(damage(path.read_bytes()))
    page = report_page([folder])
    assert f"{details_path(folder, 'insects').name} is damaged" in page
    assert "Map of insects" not in page


@pytest.mark.parametrize(
    "changes",
    [
        {"predictions": {("knn", "pretrained"): Predicted(np.full((60, 1), -1))}},
        {"predictions": {("knn", "pretrained"): Predicted(np.empty((60, 0), np.int64))}},
        {"predictions": {("knn", HOSTILE): Predicted(np.full((60, 2), 2_000_000_000))}},
        {"labels": np.full(60, -1)},
        {"labels": np.arange(60) * 10_000_000, "train_counts": None},
        {"items": np.full(60, 2**40)},
        {"map_images": np.array([3, 3, 3]), "map_features": {"pretrained": np.zeros((3, 2), np.float32)}},
        {"map_images": np.empty(0, np.int64), "map_features": {"pretrained": np.zeros((0, 2), np.float32)}},
        {"map_features": {"pretrained": np.zeros((60, 0), np.float32)}},
        {"thumbnails": Thumbnails(np.arange(3), (b"<svg onload=alert(1)>", b"", jpeg(600)))},
        {"neighbors": Neighbors(np.array([59]), {"x": np.array([[-1, 99]])}, {"x": np.array([[-1, 99]])})},
        {"groups": {f"{number}": (np.full(60, -1), ()) for number in range(20)}},
        {"class_names": ()},
    ],
)
def test_strange_details_are_shown_as_far_as_possible(folder, changes):
    write_details(folder, make(**changes))
    page = report_page([folder])
    assert "is damaged" not in page
    assert "<script>" not in page
    assert "onload" not in page


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
def test_filters_are_read_from_the_backbone(tmp_path, kind):
    filters = np.random.default_rng(0).normal(size=(5, 3, 4, 4)).astype(kind)
    others = {
        "stem.bias": np.zeros(5, kind),
        "pointwise": np.zeros((5, 3, 1, 1), kind),
        "deep": np.zeros((5, 8, 3, 3), kind),
    }
    save_file({**others, "stem.weight": filters}, tmp_path / "backbone.safetensors")
    name, found = first_filters(tmp_path)
    assert name == "stem.weight"
    np.testing.assert_array_equal(found, filters.astype(np.float32))


def test_bfloat16_filters_are_read(tmp_path):
    import torch
    from safetensors.torch import save_file as save_torch

    filters = torch.randn(2, 3, 3, 3).bfloat16()
    save_torch({"conv1.weight": filters}, tmp_path / "backbone.safetensors")
    np.testing.assert_array_equal(first_filters(tmp_path)[1], filters.float().numpy())


def test_each_filter_is_scaled_to_its_largest_value():
    filters = np.zeros((3, 3, 3, 3), np.float32)
    filters[0, 0] = 2
    filters[1, 1, 0, 0], filters[1, 1, 0, 1] = -0.5, 0.25
    uri, width, height = filters_png(filters)
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        pixels = np.asarray(image)
    assert (pixels.shape, width, height) == ((3, 11, 4), 11, 3)
    assert pixels[0, 0].tolist() == [255, 128, 128, 255]
    assert (pixels[0, 4, 1], pixels[0, 5, 1]) == (0, 191)
    assert pixels[0, 3, 3] == 0  # the gap
    assert pixels[0, 8].tolist() == [128, 128, 128, 255]


def header(**entry) -> bytes:
    text = json.dumps({"w": entry}).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 40,
        header(dtype="F32", shape=[2, 3, 3, 3], data_offsets=[0, 216]),
        header(dtype="F32", shape=[2, 3, 3, 3], data_offsets=[-9, 207]),
        header(dtype="I8", shape=[2, 3, 3, 3], data_offsets=[0, 54]),
        header(dtype="F32", shape=[10**9, 3, 3, 3], data_offsets=[0, 108 * 10**9]),
        header(dtype="F32", shape=[2, 3, 3, 3], data_offsets="x"),
        header(dtype="F32", shape=[2, 3, True, "3"]),
        b"\x02" + bytes(7) + b"[]",
    ],
)
def test_damaged_backbones_have_no_filters(folder, content):
    (folder / "backbone.safetensors").write_bytes(content)
    assert "Filters of the first layer" not in report_page([folder])
