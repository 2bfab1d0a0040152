"""Rules of single images at their thresholds."""

import math

import pyarrow as pa
import pytest

from wildfern.ssl.curation.fault_rules import FAULTS, judge_faults
from wildfern.ssl.curation.image_table import COLUMNS, ImageTable
from wildfern.ssl.curation.manifest import SCHEMA
from wildfern.ssl.curation.policy import Policy, Rule
from wildfern.ssl.curation.verdicts import Reason, Verdicts

FINE = {
    "path": "x.jpg", "pixels_sha256": "0", "width": 640, "height": 480, "format": "JPEG", "frames": 1, "contrast": 50.0,
    "dark_percentile": 250.0, "light_percentile": 10.0, "sharpness": 0.5, "page": 0.0, "screenshot": 0.0,
}  # fmt: skip


def judged(*rows: dict, policy: Policy | None = None) -> Verdicts:
    columns = {name: pa.array([row.get(name) for row in rows], SCHEMA.field(name).type) for name in COLUMNS}
    images = ImageTable(pa.table(columns), lambda _: pytest.fail("small images are not needed"))
    verdicts = Verdicts(len(rows))
    judge_faults(images, policy or Policy(), verdicts)
    return verdicts


def reasons(row: dict, **rules) -> list[Reason]:
    return judged(FINE | row, policy=Policy(**rules)).reasons.get(0, [])


def test_a_fine_image():
    assert reasons({}) == []


@pytest.mark.parametrize(
    ("rule", "action", "columns"),
    [
        ("tiny", "reject", {"width": (32, 31)}),
        ("tiny", "reject", {"height": (32, 31), "width": (100, 100)}),
        ("aspect", "reject", {"width": (400, 401), "height": (100, 100)}),
        ("aspect", "reject", {"width": (100, 100), "height": (400, 401)}),
        ("flat", "reject", {"contrast": (4.0, 3.99)}),
        ("dark", "review", {"dark_percentile": (40.0, 39.0)}),
        ("light", "review", {"light_percentile": (225.0, 226.0)}),
        ("blurred", "review", {"sharpness": (0.021, 0.019)}),
        ("page", "review", {"page": (0.49, 0.5)}),
        ("screenshot", "review", {"screenshot": (0.59, 0.61)}),
    ],
)
def test_thresholds(rule, action, columns):
    inside = {name: values[0] for name, values in columns.items()}
    outside = {name: values[1] for name, values in columns.items()}
    aspect = {} if rule == "aspect" else {"height": 480, "width": 640}
    if rule == "tiny":
        aspect = {"width": 100, "height": 100}
    assert reasons(aspect | inside) == []
    (found,) = reasons(aspect | outside)
    assert (found.rule, found.action) == (rule, action)
    expected = {"tiny": 31, "aspect": 4.01}.get(rule, next(iter(outside.values())))
    assert found.value == pytest.approx(expected)
    width, height = outside.get("width", aspect.get("width")), outside.get("height", aspect.get("height"))
    assert found.detail == (f"{width} x {height} pixels" if rule in ("tiny", "aspect") else "")
    assert reasons(aspect | outside, **{rule: type(getattr(Policy(), rule))(action="keep")}) == []


def test_a_flat_image_is_flat_alone():
    row = {
        "contrast": 1.0,
        "dark_percentile": 0.0,
        "light_percentile": 255.0,
        "sharpness": 0.0,
        "page": 1.0,
        "screenshot": 1.0,
    }
    assert [found.rule for found in reasons(row)] == ["flat"]


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault):
    unknown = dict.fromkeys(FINE) | {"path": "x.jpg", "fault": fault, "fault_detail": "why"}
    verdicts = judged(FINE, unknown, FINE)
    assert verdicts.reasons == {1: [Reason(fault, "reject", None, "why")]}  # the values that it lacks break no rule
    assert judged(unknown | {"fault_detail": None}).reasons[0] == [Reason(fault, "reject", None, "")]
    assert judged(unknown, policy=Policy(**{fault: Rule(action="review")})).strictness.tolist() == [1]


def test_an_image_of_one_pixel_and_a_line():
    assert [found.rule for found in reasons({"width": 1, "height": 1})] == ["tiny"]
    tiny, aspect = reasons({"width": 40_000, "height": 1})
    assert (tiny.value, aspect.value) == (1, 40_000)


def test_animations_and_wrong_extensions_are_kept_unless_the_policy_says_otherwise():
    row = {"frames": 12, "format": "GIF", "path": "x.jpg"}
    assert reasons(row) == []
    animated, wrong = reasons(row, animated=Rule(action="reject"), wrong_extension=Rule(action="review"))
    assert animated == Reason("animated", "reject", 12.0)
    assert wrong == Reason("wrong_extension", "review", None, "is GIF")
    assert reasons({"format": None, "path": "x.jpg"}, wrong_extension=Rule(action="review")) == []
    assert reasons({"format": "GIF", "path": "x.gif"}, wrong_extension=Rule(action="review")) == []


def test_reasons_are_in_the_order_of_the_rules():
    found = reasons({"width": 2000, "height": 20, "dark_percentile": 3.0, "sharpness": 0.0, "screenshot": 0.9})
    assert [one.rule for one in found] == ["tiny", "aspect", "dark", "blurred", "screenshot"]


def test_no_images():
    assert judged().reasons == {}


def test_values_that_are_no_numbers_break_no_rule():
    assert reasons(dict.fromkeys(("contrast", "dark_percentile", "sharpness", "page"), math.nan)) == []
