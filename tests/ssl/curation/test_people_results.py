"""Results of a people detector: each image once, kept while it runs, and only for the detector that found them."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curated_images import scene
from square_detector import SquareDetector, with_square

from wildfern.ssl.curation import people_results
from wildfern.ssl.curation.curate import Tools, scan
from wildfern.ssl.curation.manifest import SCHEMA
from wildfern.ssl.curation.measured_parts import PARTS
from wildfern.ssl.curation.people_results import Found, PeopleResults
from wildfern.ssl.curation.places import Place
from wildfern.ssl.curation.policy import People, Policy

BOX = [12.0, 10.0, 28.0, 26.0, 0.9]


class Counting(SquareDetector):
    """Remembers how many images it saw in this process."""

    def __init__(self, weights: str = "first", fails_at=None) -> None:
        super().__init__(weights, fails_at)
        self.seen = 0

    def detect(self, image):
        self.seen += 1
        return super().detect(image)


@pytest.fixture
def places(tmp_path):
    """Twenty images, every third with a square."""
    folder = tmp_path / "images"
    folder.mkdir()
    found = []
    for number in range(20):
        image = scene(number, (64, 48 + number))
        image = with_square(image) if number % 3 == 0 else image.point(lambda value: value // 2)
        path = folder / f"{number:02d}.png"
        image.save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(Place(digest, "folder", str(folder), path.name, -1, path.stat().st_size))
    return found


def expected(places) -> dict[str, Found]:
    return {
        place.sha256: Found(0.9, json.dumps([BOX])) if number % 3 == 0 else Found(0.0, "[]")
        for number, place in enumerate(places)
    }


def folder_of(tmp_path):
    folder = tmp_path / "curated"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("processes", [1, 2])
def test_every_image_is_examined_in_any_process(tmp_path, places, processes, monkeypatch):
    monkeypatch.setattr(people_results, "_FEW", 10)  # images, else one process is enough
    detector = SquareDetector()
    results = PeopleResults(folder_of(tmp_path), detector.description)
    results.examine(iter(places), len(places), detector, processes)
    assert results.found == expected(places)


def test_the_columns_of_the_manifest(tmp_path, places):
    detector = Counting()
    results = PeopleResults(folder_of(tmp_path), detector.description)
    results.examine(iter(places[:2]), 2, detector)
    digests = [places[0].sha256, places[1].sha256, places[2].sha256, None]
    columns = results.columns(digests)
    assert columns["people"].to_pylist() == [np.float32(0.9), 0.0, None, None]
    assert columns["people_boxes"].to_pylist() == [json.dumps([BOX]), None, None, None]
    assert columns["people_checked"].to_pylist() == 2 * [detector.description] + [None, None]
    assert {name: column.type for name, column in columns.items()} == {
        name: SCHEMA.field(name).type for name in ("people", "people_boxes", "people_checked")
    }
    assert np.array_equal(results.scores(digests), [0.9, 0.0, np.nan, np.nan], equal_nan=True)


def test_no_image_is_examined_twice(tmp_path, places):
    folder = folder_of(tmp_path)
    detector = Counting()
    results = PeopleResults(folder, detector.description)
    results.examine(iter([*places[:4], *places[:4]]), 8, detector)  # files with the same bytes
    assert detector.seen == 4
    later = Counting()
    again = PeopleResults(folder, later.description)
    assert again.found == {digest: Found(np.float32(score), boxes) for digest, (score, boxes) in results.found.items()}
    again.examine(iter(places), len(places), later)
    assert later.seen == 16
    assert [(digest, one.boxes) for digest, one in again.found.items()] == [
        (digest, one.boxes) for digest, one in expected(places).items()
    ]


def test_results_of_another_detector_do_not_count(tmp_path, places):
    folder = folder_of(tmp_path)
    first, second = Counting(), Counting("second")
    PeopleResults(folder, first.description).examine(iter(places), len(places), first)
    results = PeopleResults(folder, second.description)
    assert results.found == {}
    results.examine(iter(places), len(places), second)
    assert second.seen == 20
    assert set(results.columns([places[0].sha256])["people_checked"].to_pylist()) == {"squares, weights second"}
    assert len(PeopleResults(folder, first.description).found) == 20  # which are still there


@pytest.mark.parametrize("processes", [1, 2])
def test_what_was_found_before_an_error_is_kept(tmp_path, places, processes, monkeypatch):
    monkeypatch.setattr(people_results, "_FEW", 10)
    monkeypatch.setattr(people_results, "_TASK", 2)
    folder = folder_of(tmp_path)
    detector = SquareDetector(fails_at=(48 + 14, 64))
    results = PeopleResults(folder, detector.description)
    with pytest.raises(RuntimeError, match="a bug"):
        results.examine(iter(places), len(places), detector, processes)
    kept = PeopleResults(folder, detector.description)
    assert [place.sha256 for place in places[:14]] == list(kept.found)
    rest = Counting()
    kept.examine(iter(places), len(places), rest)
    assert rest.seen == 6
    assert set(kept.found) == {place.sha256 for place in places}


def test_parts_are_written_while_it_runs(tmp_path, places, monkeypatch):
    """So that a kill, after which nothing is written any more, loses little."""
    monkeypatch.setattr(people_results, "_SECONDS", 0.0)
    monkeypatch.setattr(people_results, "_TASK", 5)
    folder = folder_of(tmp_path)
    results = PeopleResults(folder, "squares, weights first")
    results.examine(iter(places), len(places), SquareDetector())
    files = sorted((folder / PARTS).glob("people-*.parquet"))
    assert [len(pq.read_table(path)) for path in files] == [5, 5, 5, 5]
    files[-1].unlink()  # as if it had been killed before
    (folder / PARTS / ".partial_01234567_people-000003.parquet").write_bytes(b"cut off")
    again = PeopleResults(folder, "squares, weights first")
    assert len(again.found) == 15
    again.examine(iter(places), len(places), SquareDetector())
    assert len(PeopleResults(folder, "squares, weights first").found) == 20


def test_damaged_and_foreign_parts_are_examined_again(tmp_path, places):
    folder = folder_of(tmp_path)
    detector = Counting()
    PeopleResults(folder, detector.description).examine(iter(places), len(places), detector)
    parts = folder / PARTS
    whole = (parts / "people-000000.parquet").read_bytes()
    (parts / "people-000000.parquet").write_bytes(whole[: len(whole) // 2])
    (parts / "people-000001.parquet").write_bytes(b"")
    pq.write_table(pa.table({"other": [1]}), parts / "people-000002.parquet")
    (parts / "people-000003 (copy).parquet").write_bytes(whole)
    (parts / "people-000007.parquet").mkdir()
    results = PeopleResults(folder, detector.description)
    assert results.found == {}
    results.examine(iter(places), len(places), detector)
    assert (parts / "people-000008.parquet").exists()  # none is overwritten
    assert len(PeopleResults(folder, detector.description).found) == 20


def test_images_that_are_gone_changed_or_unreadable_have_no_result(tmp_path, places):
    folder = folder_of(tmp_path)
    images = tmp_path / "images"
    (images / "03.png").unlink()
    scene(3).save(images / "06.png")
    cut = (images / "09.png").read_bytes()[:200]
    (images / "09.png").write_bytes(cut)
    places = [*places, Place(hashlib.sha256(cut).hexdigest(), "folder", str(images), "09.png", -1, 200)]
    places.append(Place("0" * 64, "parquet", str(tmp_path / "gone.parquet"), "row 0", 0, -1))
    results = PeopleResults(folder, "squares, weights first")
    results.examine(iter(places), len(places), SquareDetector())
    assert set(results.found) == {place.sha256 for place in places[:20]} - {places[n].sha256 for n in (3, 6, 9)}


def test_a_scan_examines_what_passed_and_a_later_one_what_is_new(tmp_path, places):
    (tmp_path / "images" / "notes.txt").write_text("no image")
    people = Policy(people=People(action="reject", detector="squares"))
    detector = Counting()
    found = scan([f"folder:{tmp_path}/images"], tmp_path / "c", people, tools=Tools(detector=detector)).manifest
    assert detector.seen == 20
    decisions = {row["path"]: row["decision"] for row in found.table(["path", "decision"]).to_pylist()}
    assert [name for name in sorted(decisions) if decisions[name] == "reject"] == [
        *(f"{number:02d}.png" for number in range(0, 20, 3)),
        "notes.txt",
    ]
    assert found.info.checked == ["squares: squares, weights first"]
    assert found.info.not_checked[0] == "squares of other colors"
    scene(40).save(tmp_path / "images" / "new.png")
    later = Counting()
    scan([f"folder:{tmp_path}/images"], tmp_path / "c", people, tools=Tools(detector=later))
    assert later.seen == 1  # the others are known by the manifest, as parts are removed at the end
    assert not (tmp_path / "c" / PARTS).exists()
