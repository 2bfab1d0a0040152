"""The order of rules: the strictest action decides, marks and takedowns go above, and copies follow."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from wildfern.ssl.curation.decide import decide
from wildfern.ssl.curation.feature_rules import ImageFeatures
from wildfern.ssl.curation.image_table import COLUMNS, ImageTable
from wildfern.ssl.curation.manifest import SCHEMA
from wildfern.ssl.curation.policy import Caps, Features, License, People, Policy, Rule, Selection
from wildfern.ssl.curation.takedowns import Takedown

KINDS = {field.name: field.type for field in SCHEMA}
FINE = {
    "source": "folder:x",
    "container": "/x",
    "bytes": 1000,
    "width": 640,
    "height": 480,
    "format": "JPEG",
    "frames": 1,
    "contrast": 50.0,
    "dark_percentile": 250.0,
    "light_percentile": 10.0,
    "sharpness": 0.5,
    "page": 0.0,
    "screenshot": 0.0,
    "phash_quality": 50.0,
}


def table(*rows: dict) -> ImageTable:
    """Images of their own pixels and hashes, but for what each row says; `pixels` and `hash` number them."""
    full = []
    for number, row in enumerate(rows):
        row = dict(row)
        pixels, hashed = row.pop("pixels", number), row.pop("hash", None)
        rng = np.random.Generator(np.random.Philox(number if hashed is None else 1000 + hashed))
        own = {
            "path": f"{number}.jpg",
            "sha256": f"{number:064x}",
            "pixels_sha256": f"{pixels:064x}",
            "phash": int(rng.integers(2**63)),
        }
        full.append(FINE | own | row)
    columns = {name: pa.array([row.get(name) for row in full], KINDS[name]) for name in COLUMNS}

    def read_small(images):
        return np.full((len(images), 16, 16, 3), 100, np.uint8)

    return ImageTable(pa.table(columns), read_small)


def decisions(images: ImageTable, *arguments, **named) -> list[str]:
    found = decide(images, *arguments, **named).verdicts
    return [["keep", "review", "reject"][strictness] for strictness in found.strictness]


def rules(images: ImageTable, *arguments, **named) -> list[list[str]]:
    found = decide(images, *arguments, **named).verdicts
    return [[reason.rule for reason in found.reasons.get(n, ())] for n in range(len(images))]


def test_nothing_is_wrong_with_fine_images():
    assert decisions(table({}, {}, {}), Policy()) == ["keep"] * 3


def test_the_strictest_rule_decides_and_all_reasons_are_kept():
    images = table({"dark_percentile": 10.0, "width": 20, "height": 20}, {"dark_percentile": 10.0})
    assert decisions(images, Policy()) == ["reject", "review"]
    assert rules(images, Policy()) == [["tiny", "dark"], ["dark"]]


def test_a_rule_that_keeps_gives_no_reason():
    images = table({"width": 20, "height": 20})
    assert rules(images, Policy(tiny=type(Policy().tiny)(action="keep"))) == [[]]


@pytest.mark.parametrize(
    ("license", "decision"),
    [
        ("CC-BY-4.0", "keep"),
        ("CC0-1.0", "keep"),
        ("CC-BY-NC-4.0", "reject"),
        ("CC-BY-SA-4.0", "reject"),
        (None, "review"),
    ],
)
def test_licenses(license, decision):
    policy = Policy(license=License(action="reject", allow=("CC-BY-*", "CC0-1.0"), unknown="review"))
    assert decisions(table({"license": license}), policy) == [decision]
    assert decisions(table({"license": license}), Policy()) == ["keep"]  # any license passes


def test_a_reservation_in_the_file():
    images = table({"optout": "C2PA: training notAllowed"}, {})
    assert decisions(images, Policy()) == ["reject", "keep"]
    assert decisions(images, Policy(optout=Rule(action="keep"))) == ["keep", "keep"]


def test_the_best_copy_is_kept_by_pixels_then_bytes():
    sizes = [(100, 75, 9), (640, 480, 5), (640, 480, 8)]
    images = table(
        *({"pixels": n, "hash": 1, "width": w, "height": h, "bytes": b} for n, (w, h, b) in enumerate(sizes))
    )
    found = decide(images, Policy())
    assert found.copies.best.tolist() == [2, 2, 2]
    assert [reason.rule for reason in found.verdicts.reasons[0]] == ["near_duplicate"]
    assert found.verdicts.reasons[0][0].detail == "copy of 2.jpg"


def test_a_copy_that_passed_is_better_than_a_larger_one_that_did_not():
    policy = Policy(license=License(action="reject", allow=("CC-BY-*",), unknown="reject"))
    small = {"pixels": 0, "hash": 1, "width": 320, "height": 240, "license": "CC-BY-4.0"}
    large = {"pixels": 1, "hash": 1, "license": "CC-BY-NC-4.0"}
    assert decisions(table(small, large), policy) == ["keep", "reject"]


def test_people_in_one_copy_are_in_all_copies():
    policy = Policy(people=People(action="reject", detector="centerface", reject=0.5, review=0.2))
    images = table(
        {"pixels": 0, "hash": 1, "people": 0.9},
        {"pixels": 1, "hash": 1, "people": 0.0, "bytes": 5000},
        {"people": 0.3},
        {"people": 0.1},
        {},
    )
    assert decisions(images, policy) == ["reject", "reject", "review", "keep", "review"]
    assert decide(images, policy).verdicts.reasons[4][0].detail == "not examined by the detector"
    blurred = Policy(people=People(action="reject", detector="centerface", blur=True))
    assert decisions(images, blurred)[2:] == ["keep", "keep", "review"]  # the last was not examined


def test_a_mark_decides_but_does_not_make_a_file_readable():
    images = table(
        {"width": 20, "height": 20},
        {"pixels_sha256": None, "fault": "truncated", "fault_detail": "cut off", "width": None, "height": None},
        {},
        {"pixels": 2, "bytes": 5},
    )
    marks = {f"{0:064x}": "keep", f"{1:064x}": "keep", f"{2:064x}": "drop"}
    assert decisions(images, Policy(), marks) == ["keep", "reject", "reject", "reject"]
    assert rules(images, Policy(), marks)[3][0] == "marked"  # a copy of what is dropped
    kept_both = marks | {f"{3:064x}": "keep"}
    assert decisions(images, Policy(), kept_both)[2:] == ["reject", "keep"]


def test_caps_count_what_is_kept_and_begin_with_what_is_marked():
    rows = [{"author": "a"}] * 5 + [{"author": "b"}] * 2 + [{"author": None}] * 4
    images = table(*rows, {"author": "a", "width": 5, "height": 5})
    policy = Policy(caps=Caps(author=3))
    found = decide(images, policy)
    kept = found.verdicts.kept
    assert (kept[:5].sum(), kept[5:7].sum(), kept[7:11].sum(), kept[11]) == (3, 2, 4, False)
    assert found.notes == ["caps.author: 4 images have no author and are not capped"]
    for place in range(5):
        assert decide(images, policy, {f"{place:064x}": "keep"}).verdicts.kept[place]
        assert decide(images, policy, {f"{place:064x}": "keep"}).verdicts.kept[:5].sum() == 3
    assert decide(images, policy).verdicts.kept.tolist() == kept.tolist()


def taken(number: int, phash: int | None = None) -> Takedown:
    return Takedown("2026-01-01", f"{number:064x}", f"{number:064x}", phash, "folder:x", "/x", f"{number}.jpg", "asked")


def test_what_was_taken_down_and_its_copies_do_not_come_back():
    images = table({}, {"pixels": 0}, {"pixels": 2, "hash": 1}, {"pixels": 3, "hash": 1, "bytes": 5}, {})
    everything = {f"{n:064x}": "keep" for n in range(5)}
    found = decide(images, Policy(), everything, [taken(0), taken(3)])
    assert [["keep", "review", "reject"][s] for s in found.verdicts.strictness] == ["reject"] * 4 + ["keep"]
    assert found.verdicts.reasons[0][0] == ("taken_down", "reject", None, "asked")
    assert found.verdicts.reasons[1][0].detail == "asked"  # the same pixels
    assert found.verdicts.reasons[2][0].detail == "copy of an image taken down (asked)"


def test_no_policy_keeps_what_cannot_be_read():
    broken = {"pixels_sha256": None, "fault": "truncated", "width": None, "height": None}
    assert decisions(table(broken), Policy(truncated=Rule(action="keep"))) == ["reject"]
    assert decisions(table(broken), Policy(truncated=Rule(action="review"))) == ["reject"]


def test_a_mark_overrules_a_likeness_but_no_takedown():
    images = table({}, {})
    marks = {f"{n:064x}": "keep" for n in range(2)}
    assert decisions(images, Policy(), marks, [taken(0), taken(77, int(images.hashes[1]))]) == ["reject", "keep"]


def test_too_few_marks_for_a_filter_are_said_and_stop_nothing():
    policy = Policy(features=Features(backbone="x"), selection=Selection(filter=0.5))
    features = ImageFeatures(np.arange(2), torch.eye(2))
    found = decide(table({}, {}), policy, {f"{0:064x}": "keep"}, features=features)
    assert found.notes[0].startswith(
        "selection.filter was not applied: there are 1 images marked keep and 0 marked drop"
    )
    assert found.verdicts.kept.all()


def test_what_looks_like_an_image_taken_down_is_reviewed():
    images = table({}, {})
    gone = taken(77, int(images.hashes[1]) ^ 0b101)
    assert decisions(images, Policy(), {}, [gone]) == ["keep", "review"]
    assert decisions(images, Policy(), {}, [taken(77)]) == ["keep", "keep"]


def test_no_images():
    assert decisions(table(), Policy()) == []


def test_of_files_with_one_content_that_is_marked_keep_one_is_kept():
    policy = Policy(license=License(action="reject", allow=("CC-BY-*",)))
    same = {"pixels": 0, "sha256": "a" * 64}
    images = table(
        same | {"license": "CC-BY-NC-2.0", "bytes": 1000},
        same | {"license": "CC-BY-2.0"},
        same | {"license": "CC-BY-2.0"},
        {"license": "CC-BY-2.0"},
    )
    marks = {"a" * 64: "keep"}
    assert decisions(images, policy, marks) == ["reject", "keep", "reject", "keep"]
    assert rules(images, policy, marks) == [
        ["license", "exact_duplicate"],
        ["marked"],
        ["exact_duplicate"],
        [],
    ]
    several = Policy(exact_duplicate=Rule(action="keep"))
    assert decisions(images, several, marks) == ["keep"] * 4


def test_what_is_kept_twice_or_has_another_license_elsewhere_is_said():
    images = table(
        {"pixels": 0, "license": "CC-BY-2.0"},
        {"pixels": 0, "license": "CC-BY-NC-2.0"},
        {"hash": 1, "license": "CC-BY-2.0"},
        {"hash": 1, "license": "CC-BY-2.0"},
        {"pixels": 9, "license": None},
        {"pixels": 9, "license": "CC0-1.0"},
    )
    (note,) = decide(images, Policy()).notes
    assert note.startswith("kept images with copies under another license: 1;")
    marks = {f"{3:064x}": "keep"}
    assert decide(images, Policy(), marks).notes[0].endswith("as marks or the policy want it: 2")
    assert decide(table({}, {}), Policy()).notes == []


def test_marks_of_no_image_are_said():
    assert decide(table({}), Policy(), {"f" * 64: "keep", f"{0:064x}": "keep"}).notes == [
        "marks of no image that was found: 1"
    ]


def test_a_table_of_licenses_that_is_missing_is_said():
    policy = Policy(license=License(action="reject", allow=("CC-BY-*",)))
    assert "named with --metadata" in decide(table({}, {}), policy).notes[0]
    assert decide(table({}, {"license": "CC-BY-2.0"}), policy).notes == []


def test_a_filter_learns_from_the_marked_images_that_have_features():
    images = table(*({} for _ in range(30)))
    marks = {f"{n:064x}": "keep" if n < 12 else "drop" for n in range(24)}
    policy = Policy(features=Features(backbone="x"), selection=Selection(filter=0.5))
    with_features = np.r_[0:12, 24:30]
    features = ImageFeatures(with_features, torch.randn(len(with_features), 4))
    found = decide(images, policy, marks, features=features)
    assert "there are 12 images marked keep and 0 marked drop" in found.notes[0]
    assert len(found.notes) == 1


def test_faces_are_blurred_in_what_is_kept_and_that_is_said():
    policy = Policy(people=People(action="reject", detector="centerface", review=0.2, reject=0.5, blur=True))
    images = table({"people": 0.9}, {"people": 0.1}, {"people": 0.3, "width": 20, "height": 20})
    assert decisions(images, policy) == ["keep", "keep", "reject"]
    assert decide(images, policy).notes == ["kept images in which faces or persons are blurred: 1"]
