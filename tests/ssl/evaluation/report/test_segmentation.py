"""Segmentations: their details, stored in a run folder, read back, and shown in the report."""

import base64
import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from masked_squares import PLAIN, PixelNetwork, Squares, noisy_image
from safetensors.numpy import load_file, save_file

from wildfern.ssl.evaluation import Segmentation, evaluate_backbones, report_page
from wildfern.ssl.evaluation.evaluator import SegmentationDetails
from wildfern.ssl.evaluation.protocols.segmentation import Segmented, segmentation_scores
from wildfern.ssl.evaluation.report.image_details import ImageDetails, details_path, read_details, write_details
from wildfern.ssl.evaluation.report.segmentation import curve_points, point_at, segmentation_part

HOSTILE = "</script><script>alert(1)</script>\"'&"
NONE = np.empty(0, np.int64)


@cache
def stored() -> tuple[SegmentationDetails, SegmentationDetails]:
    """Of two backbones."""
    return made(None, seed=1), made()


def stream(count=11, region=False, levels=0, seed=0):
    """Random probabilities of random masks; `levels` makes ties."""
    rng = np.random.default_rng(seed)
    for item in range(count):
        image = noisy_image(item, (20 + item, 24), region)
        probability = np.clip(0.4 * image.mask + 0.7 * rng.random(image.mask.shape), 0, 1)
        if levels:
            probability = np.round(probability * levels) / levels
        yield Segmented(probability.astype(np.float32), image._replace(item=3 * item))


def made(threshold=0.31, **options) -> SegmentationDetails:
    return segmentation_scores(stream(**options), threshold=threshold, chosen_on="rendered images")[0].segmentation


def details(**changes) -> ImageDetails:
    found = {("segmentation", name): one for name, one in zip(("random", "pretrained"), stored(), strict=True)}
    return ImageDetails("eyes", NONE, NONE, **{"segmentations": found, **changes})


@pytest.fixture
def folder(tmp_path):
    """A run with scores on eyes."""
    row = {"dataset": "eyes", "protocol": "segmentation", "metric": "dice", "value": 0.5}
    rows = [row | {"backbone": name} for name in ("random", "pretrained")]
    (tmp_path / "recipe.yaml").write_text("name: fern\n")
    (tmp_path / "evaluation.json").write_text(json.dumps({"baseline": "random", "protocols": {}, "rows": rows}))
    return tmp_path


def assert_equal(found: SegmentationDetails, expected: SegmentationDetails) -> None:
    for name in ("counts", "items", "dice"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    assert (found.threshold, found.overlays) == (expected.threshold, expected.overlays)


@pytest.mark.parametrize(("region", "levels"), [(False, 0), (True, 0), (True, 20)])
def test_points_of_the_curve_are_counts_of_single_pixels(region, levels):
    found = made(region=region, levels=levels)
    points = curve_points(found)
    everything = list(stream(region=region, levels=levels))
    for place in [*range(0, 1001, 50), 310, 999]:
        right = wrong = missed = 0
        for probability, image in everything:
            for value, wanted, inside in zip(
                probability.ravel().tolist(),
                image.mask.ravel(),
                image.mask.ravel() | True if image.region is None else image.region.ravel(),
                strict=True,
            ):
                predicted = value >= np.float32(place / 1000)
                right += inside and wanted and predicted
                wrong += inside and not wanted and predicted
                missed += inside and wanted and not predicted
        if not right + wrong:
            assert place >= len(points)
            continue
        assert points[place].threshold == place / 1000
        assert points[place].precision == pytest.approx(right / (right + wrong))
        assert points[place].recall == pytest.approx(right / (right + missed))
        assert points[place].dice == pytest.approx(2 * right / (2 * right + wrong + missed))


def test_thresholds_that_no_pixel_reaches_have_no_point():
    low = [Segmented(0.4 * one.probability, one.image) for one in stream(3)]
    points = curve_points(segmentation_scores(low)[0].segmentation)
    assert points[-1].threshold <= 0.4
    assert point_at(points, 0.5) is point_at(points, None) is None
    assert point_at(points, 0.25).threshold == 0.25


def test_dice_is_that_of_each_image():
    score = segmentation_scores(stream(8, region=True))[0]
    np.testing.assert_array_equal(score.segmentation.dice, score.per_image)
    assert score.segmentation.items.tolist() == [3 * item for item in range(8)]
    assert score.segmentation.threshold is None


def evaluated(details=True):
    networks = {"random": PixelNetwork((0.0, 0.0, 0.0)), "pretrained": PixelNetwork((4.0, 0.0, 0.0))}
    return evaluate_backbones(
        networks, Squares([9]), Squares(range(4)), dataset="squares", evaluators={"it": Segmentation()},
        preprocessing=PLAIN, details=details,
    )  # fmt: skip


def test_an_evaluation_has_the_details_of_its_segmentations():
    found = evaluated().details["squares"]
    assert (len(found), list(found.segmentations)) == (0, [("it", "random"), ("it", "pretrained")])
    for name, details in found.segmentations.items():
        assert details.items.tolist() == [0, 1, 2, 3]
        assert details.counts[:, 0].sum() == 4 * 20 * 24
        assert (details.dice == 1).all() == (name[1] == "pretrained")
    without = evaluated(details=False)
    assert (without.details, "segmentation" in without.rows[0]) == ({}, False)


def test_details_are_read_back(tmp_path):
    write_details(tmp_path, details())
    found = read_details(tmp_path, "eyes")
    assert len(found) == 0
    assert list(found.segmentations) == list(details().segmentations)
    for names, one in details().segmentations.items():
        assert_equal(found.segmentations[names], one)


def test_a_file_without_segmentations_says_nothing_of_them(tmp_path):
    content = write_details(tmp_path, details(segmentations={})).read_bytes()
    assert b"segmentation" not in content
    assert read_details(tmp_path, "eyes").segmentations == {}


def test_a_data_set_may_have_labels_and_segmentations(tmp_path):
    write_details(tmp_path, replace(details(), labels=np.arange(3), items=np.arange(3)))
    found = read_details(tmp_path, "eyes")
    assert (found.labels.tolist(), len(found.segmentations)) == ([0, 1, 2], 2)


def test_details_of_some_backbones_and_of_an_earlier_evaluation():
    earlier = details()
    only = earlier.only(["pretrained"])
    assert list(only.segmentations) == [("segmentation", "pretrained")]
    assert only.with_earlier(earlier).segmentations.keys() == earlier.segmentations.keys()
    new = details(segmentations={("segmentation", "pretrained"): made(0.9)})
    merged = new.with_earlier(earlier).segmentations
    assert merged["segmentation", "pretrained"].threshold == 0.9
    # Single images of other protocols stay, and so do segmentations when such images follow.
    images = ImageDetails("eyes", np.arange(3), np.arange(3), ("a", "b", "c"))
    for both in (new.with_earlier(images), images.with_earlier(new)):
        assert (len(both), both.class_names) == (3, ("a", "b", "c"))
        assert list(both.segmentations) == [("segmentation", "pretrained")]


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("counts", np.zeros((2, 1000), np.int64)),
        ("counts", np.zeros((2, 1001), np.float64)),
        ("counts", np.full((2, 1001), -1)),
        ("counts", np.full((2, 1001), 2**60)),
        ("counts", np.tile(np.arange(1001), (2, 1))),
        ("counts", None),
        ("items", np.arange(9)),
        ("items", -np.arange(8)),
        ("items", np.zeros((8, 1), np.int64)),
        ("items", np.zeros(8, np.float32)),
        ("dice", np.full(8, np.nan, np.float32)),
        ("dice", np.full(8, 1.5, np.float32)),
        ("dice", np.zeros(7, np.float32)),
        ("dice", np.zeros(8, np.int64)),
        ("overlay.7", None),
        ("overlay.0", np.zeros(100, np.float32)),
        ("overlay.0", np.zeros((10, 10), np.uint8)),
    ],
)
def test_damaged_arrays_are_an_error_in_one_line(folder, name, array):
    path = write_details(folder, details())
    arrays = load_file(path)
    arrays.pop(f"segmentation.1.{name}")
    if array is not None:
        arrays[f"segmentation.1.{name}"] = array
    save_file(arrays, path, metadata(path))
    assert_refused(folder, f"segmentation.1.{name}")


@pytest.mark.parametrize(
    "entries",
    [
        1,
        [1],
        [["segmentation", "pretrained"]],
        *([["segmentation", "pretrained", threshold]] for threshold in (-0.1, 1.1, "0.5", True, float("nan"), [])),
        [["segmentation", "pretrained", 0.5]] * 3,  # of which two are stored
    ],
)
def test_damaged_descriptions_are_an_error_in_one_line(folder, entries):
    path = write_details(folder, details())
    stored = metadata(path)
    stored["details"] = json.dumps(json.loads(stored["details"]) | {"segmentations": entries})
    save_file(load_file(path), path, stored)
    assert_refused(folder, "")


def metadata(path) -> dict[str, str]:
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]


def assert_refused(folder, words) -> None:
    with pytest.raises(ValueError, match=f"{details_path(folder, 'eyes').name} is damaged: .*{words}") as error:
        read_details(folder, "eyes")
    assert "\n" not in str(error.value)
    page = report_page([folder])
    assert f"{details_path(folder, 'eyes').name} is damaged" in page
    assert "Segmentation of eyes" not in page


def tiles(page: str) -> list[tuple[str, bytes]]:
    """Alternative text and file of each overlay."""
    found = re.findall(r'<img alt="(Test image[^"]*)" src="data:image/jpeg;base64,([^"]*)">', page)
    return [(said, base64.b64decode(file)) for said, file in found]


def test_the_page_has_curves_of_all_backbones_and_overlays_of_the_pretrained_one(folder):
    write_details(folder, details())
    page = report_page([folder])
    assert ("<h2>Segmentation of eyes</h2>" in page, "<h2>Test images" in page) == (True, False)
    expected = details().segmentations["segmentation", "pretrained"]
    shares = [f"{100 * dice:.1f} %" for dice in expected.dice]
    words = [f"Test image {item}: Dice {share}" for item, share in zip(expected.items, shares, strict=True)]
    assert tiles(page) == list(zip(words, expected.overlays, strict=True))
    assert re.findall("Dice <b>(.*?)</b>", page) == shares
    assert re.findall("</i>([a-z ]+)</span>", page) == ["found", "missed", "false alarm"]
    assert "Test images segmented by pretrained" in page
    assert "predicted: probability of at least 0.31, the chosen threshold" in page
    assert page.count("<polyline") == 2
    assert (page.count("<circle"), page.count("<polygon")) == (2, 1)  # one has a chosen threshold
    fixed, chosen = (point_at(curve_points(expected), threshold) for threshold in (0.5, 0.31))
    assert f"<title>pretrained, {fixed.words}</title></circle>" in page
    assert f"<title>pretrained, chosen {chosen.words}</title></polygon>" in page
    cells = [f"{100 * value:.1f} %" for value in (chosen.precision, chosen.recall, chosen.dice)]
    row = "".join(f"<td class=num>{cell}</td>" for cell in cells)
    assert f"<tr><th scope=row>pretrained</th><td>0.31 (chosen)</td>{row}</tr>" in page


def test_the_curve_is_drawn_through_its_points():
    found = made()
    line = re.search(r'<polyline points="([^"]*)"', segmentation_part({"pretrained": found}))[1]
    drawn = np.array([[float(number) for number in pair.split(",")] for pair in line.split()])
    x, width, y, height = 48, 300, 6, 300
    shares = np.c_[(drawn[:, 0] - x) / width, 1 - (drawn[:, 1] - y) / height]
    points = np.array([(one.recall, one.precision) for one in curve_points(found)])
    distance = np.abs(points[:, None] - shares[None]).max(2)
    assert distance.min(0).max() < 3e-4  # a tenth of a pixel
    assert distance.min(1).max() < 3e-4


def test_a_page_without_segmentations_has_nothing_of_them(folder):
    write_details(folder, details(segmentations={}))
    page = report_page([folder])
    assert not re.search("<h2>Segmentation|precision-recall|overlays", page)


def test_what_cannot_be_shown_is_left_out():
    found = made()
    strange = (b"<svg onload=alert(1)>", b"", found.overlays[0] + bytes(2**16), *found.overlays[3:])
    assert len(tiles(segmentation_part({"a": replace(found, overlays=strange)}))) == 5
    nothing = replace(found, overlays=(b"",) * 8)
    assert "<h3>" not in segmentation_part({"a": nothing})
    empty = replace(found, counts=np.zeros_like(found.counts))  # images without mask pixels have no recall
    assert "<svg" not in segmentation_part({"a": empty})
    assert len(tiles(segmentation_part({"a": empty}))) == 8
    assert segmentation_part({"a": replace(nothing, counts=empty.counts)}) == segmentation_part({}) == ""
    never = replace(found, counts=np.where(np.arange(1001) < 100, found.counts[:, :1], 0))
    part = segmentation_part({"a": never})
    assert ("a, nothing at threshold 0.5" in part, "<circle" in part) == (True, False)


def test_names_are_escaped_and_numbers_of_backbones_and_protocols_bounded(folder):
    found = {(f"{HOSTILE}{place // 10}", f"{HOSTILE}{place}"): one for one in [made()] for place in range(90)}
    write_details(folder, details(segmentations=found))
    page = report_page([folder])
    assert not re.search(r"alert\(1\)</script|<script>", page)
    assert page.count("<polyline") == len(tiles(page)) == 8 * 8


def test_several_runs_have_their_names(folder):
    write_details(folder, details())
    page = report_page([folder, folder])
    assert page.count("<figure class=precision-recall>") == 2
    assert page.count(">Segmentation of eyes</h2>") == 1
