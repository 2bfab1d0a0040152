"""The documents beside a manifest, from a scan of a small folder, also where names are hostile."""

import csv
import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from curated_images import scene, write_scenes
from PIL import ExifTags, Image
from square_detector import SquareDetector, with_square

from wildfern.ssl.curation.curate import Tools, decide_again, scan
from wildfern.ssl.curation.datasheet import BY_HAND
from wildfern.ssl.curation.documents import write_documents
from wildfern.ssl.curation.found_images import find_images
from wildfern.ssl.curation.manifest import Manifest, path_on_disk
from wildfern.ssl.curation.policy import License, People, Policy
from wildfern.ssl.curation.takedowns import add_takedowns

DOCUMENTS = ["review.html", "datasheet.md", "croissant.json", "attribution.csv", "rejected.csv"]


def lines(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def images(tmp_path):
    """Eight scenes with rights, a copy, a flat and tiny image, a text, and one whose license is not allowed."""
    folder = tmp_path / "images"
    names = write_scenes(folder, 8)
    scene(1).save(folder / "copy.jpg", quality=90)
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(folder / "flat.png")
    (folder / "notes.txt").write_text("no image")
    exif = Image.Exif()
    exif[ExifTags.Base.Copyright] = "Copyright Photographer"
    scene(9).save(folder / "camera.jpg", exif=exif)
    rights = [f"{name},CC BY 4.0,Ada,https://example.org/{name},T{n}" for n, name in enumerate([*names, "copy.jpg"])]
    (tmp_path / "rights.csv").write_text("\n".join(["path,license,author,url,title", *rights]) + "\n")
    return folder


POLICY = Policy(license=License(action="reject", allow=("CC-BY-*",)))


def curated(images, policy=POLICY, tools=None):
    folder = images.parent / "curated"
    return scan([f"folder:{images}"], folder, policy, metadata=[images.parent / "rights.csv"], tools=tools)


def test_what_was_written_into_the_datasheet_stays(images, tmp_path):
    folder = tmp_path / "curated"
    write_documents(folder, curated(images), "2026-01-02")
    sheet = folder / "datasheet.md"
    before = sheet.read_text()
    assert "8, of 12 that were found" in before
    sheet.write_text(before.replace(BY_HAND, "To learn – from *trees*.", 1))
    (images / "scene_00.png").unlink()
    write_documents(folder, curated(images), "2026-01-03")
    after = sheet.read_text()
    assert "of 11 that were found" in after
    assert after.count("To learn – from *trees*.") == 1
    assert after.index("For what purpose") < after.index("To learn") < after.index("Who made it, and for whom?")


def test_all_documents_are_written_from_one_manifest(images, tmp_path):
    found = curated(images)
    paths = write_documents(tmp_path / "curated", found, "2026-01-02")
    assert paths == [tmp_path / "curated" / name for name in DOCUMENTS]
    assert all(path.stat().st_size for path in paths)
    digest = hashlib.sha256((tmp_path / "curated" / "manifest.parquet").read_bytes()).hexdigest()
    assert found.manifest.info.counts == {"keep": 8, "review": 1, "reject": 3}
    page, sheet = paths[0].read_text(encoding="utf-8"), paths[1].read_text(encoding="utf-8")
    assert "<li class=keep><b>8</b>" in page
    assert digest in page
    assert digest in sheet
    about = json.loads(paths[2].read_text(encoding="utf-8"))
    assert about["description"] == "8 images without labels, kept of 12."
    assert (about["datePublished"], about["license"]) == (
        "2026-01-02",
        ["https://creativecommons.org/licenses/by/4.0/"],
    )
    assert about["distribution"][0]["sha256"] == digest
    assert "license: 3 images set to review" in about["rai:dataPreprocessingProtocol"]


def test_each_reason_against_an_image_has_a_line(images, tmp_path):
    write_documents(tmp_path / "curated", curated(images), "2026-01-02")
    found = [(row["path"], row["decision"], row["rule"]) for row in lines(tmp_path / "curated" / "rejected.csv")]
    expected = [
        (row["path"], row["decision"], reason["rule"])
        for row in Manifest(tmp_path / "curated").table(["path", "decision", "reasons"]).to_pylist()
        for reason in row["reasons"]
        if row["decision"] != "keep"
    ]
    assert found == expected
    assert set(found) == {
        ("copy.jpg", "reject", "near_duplicate"),
        ("flat.png", "reject", "tiny"),
        ("flat.png", "reject", "flat"),
        ("flat.png", "reject", "license"),
        ("notes.txt", "reject", "not_an_image"),
        ("notes.txt", "reject", "license"),
        ("camera.jpg", "review", "license"),
    }


def test_the_kept_images_are_attributed(images, tmp_path):
    policy = Policy()
    write_documents(tmp_path / "curated", curated(images, policy), "2026-01-02")
    rows = {row["path"]: row for row in lines(tmp_path / "curated" / "attribution.csv")}
    assert set(rows) == {*(f"scene_0{n}.png" for n in range(8)), "camera.jpg"}
    one = rows["scene_03.png"]
    assert (one["title"], one["author"], one["license"]) == ("T3", "Ada", "CC-BY-4.0")
    assert one["license_url"] == "https://creativecommons.org/licenses/by/4.0/"
    assert one["source_url"] == "https://example.org/scene_03.png"
    assert one["changes"] == "none: decoded while training"
    assert (rows["camera.jpg"]["rights"], rows["camera.jpg"]["license"]) == ("Copyright Photographer", "")


def test_blurring_is_a_change_that_is_said(images, tmp_path):
    with_square(scene(0)).save(images / "scene_00.png")
    people = Policy(people=People(action="reject", detector="squares", blur=True))
    found = curated(images, people, Tools(detector=SquareDetector()))
    write_documents(tmp_path / "curated", found, "2026-01-02")
    rows = lines(tmp_path / "curated" / "attribution.csv")
    assert "scene_00.png" in {row["path"] for row in rows}
    changes = {row["path"]: row["changes"] for row in rows}
    assert changes.pop("scene_00.png") == "faces or persons blurred while training"
    assert set(changes.values()) == {"none: decoded while training"}
    assert "kept images in which faces or persons are blurred: 1" in found.manifest.info.notes


def test_documents_follow_a_takedown(images, tmp_path):
    write_documents(tmp_path / "curated", curated(images), "2026-01-02")
    taken = find_images(Manifest(tmp_path / "curated"), {"path": {"scene_01.png"}}).images
    add_takedowns(tmp_path / "curated", taken)
    write_documents(tmp_path / "curated", decide_again(tmp_path / "curated", POLICY), "2026-01-03")
    assert "scene_01.png" not in {row["path"] for row in lines(tmp_path / "curated" / "attribution.csv")}
    rejected = {(row["path"], row["rule"]) for row in lines(tmp_path / "curated" / "rejected.csv")}
    assert rejected >= {("scene_01.png", "taken_down"), ("copy.jpg", "taken_down")}
    about = json.loads((tmp_path / "curated" / "croissant.json").read_text(encoding="utf-8"))
    assert about["description"] == "7 images without labels, kept of 12."
    assert "taken_down: 2 images set to reject" in about["rai:dataPreprocessingProtocol"]


NAMES = [
    "'single' \"double\"",
    "<script>alert(1)<",
    "line\nbreak\r",
    "=1+1",
    "@x,y;z",
    "café ☃",
    "\udcff\udcfe",
    "a\u202eb",
]


def test_names_and_texts_of_strangers_come_back_from_the_tables(tmp_path):
    folder = tmp_path / "from \"<i>' strangers"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        path = os.fsencode(f"{folder}/") + os.fsencode(name) + b".png"
        with open(path, "wb") as file:
            scene(number, (64, 48) if number % 2 else (20, 20)).save(file, "PNG")
    rows = [{"path": f"{name}.png", "author": name, "license": "CC0-1.0"} for name in NAMES if name.isprintable()]
    (tmp_path / "rights.json").write_text(json.dumps(rows))
    out = tmp_path / "out </script> 'x'"
    found = scan([f"folder:{folder}"], out, Policy(), metadata=[tmp_path / "rights.json"])
    write_documents(out, found, "2026-01-02")

    def names(file):
        cells = [row["path"] for row in lines(out / file)]
        return {path_on_disk(cell.removeprefix("'")) for cell in cells}

    # A cell that starts with an apostrophe has one more.
    assert names("rejected.csv") == {f"{name}.png" for name in NAMES[::2]}
    assert names("attribution.csv") == {f"{name}.png" for name in NAMES[1::2]}
    authors = {row["author"] for row in lines(out / "attribution.csv")}
    assert authors == {"<script>alert(1)<", "'=1+1", "café ☃", ""}
    page = (out / "review.html").read_text(encoding="utf-8")
    assert page.count("<script") == 2
    json.loads((out / "croissant.json").read_text(encoding="utf-8"))
    assert "<script" not in (out / "datasheet.md").read_text(encoding="utf-8")


def test_a_folder_without_a_kept_image_and_a_kept_one_without_a_reason(tmp_path):
    write_scenes(tmp_path / "images", 2)
    for name, policy in (("all", Policy()), ("none", Policy(tiny=type(Policy().tiny)(action="reject", min_side=999)))):
        found = scan([f"folder:{tmp_path}/images"], tmp_path / name, policy)
        write_documents(tmp_path / name, found, "2026-01-02")
        assert len(lines(tmp_path / name / "attribution.csv")) == 2 * (name == "all")
        assert len(lines(tmp_path / name / "rejected.csv")) == 2 * (name == "none")
        json.loads((tmp_path / name / "croissant.json").read_text(encoding="utf-8"))


def test_documents_are_written_again_over_damaged_ones_and_links_are_replaced(images, tmp_path):
    found = curated(images)
    (tmp_path / "precious.txt").write_text("precious")
    (tmp_path / "curated" / "review.html").symlink_to(tmp_path / "precious.txt")
    (tmp_path / "curated" / "croissant.json").write_bytes(b"\0")
    write_documents(tmp_path / "curated", found, "2026-01-02")
    first = {name: (tmp_path / "curated" / name).read_bytes() for name in DOCUMENTS}
    assert (tmp_path / "precious.txt").read_text() == "precious"
    write_documents(tmp_path / "curated", found, "2026-01-02")
    assert {name: (tmp_path / "curated" / name).read_bytes() for name in DOCUMENTS} == first
    shutil.rmtree(images)
    write_documents(tmp_path / "curated", found, "2026-01-02")  # without thumbnails
    assert (tmp_path / "curated" / "rejected.csv").read_bytes() == first["rejected.csv"]
    assert len((tmp_path / "curated" / "review.html").read_bytes()) < len(first["review.html"])
