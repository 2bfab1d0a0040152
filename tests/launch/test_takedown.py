"""`wildfern curate remove`: which names find an image, and what a damaged folder does to a takedown."""

import shutil

import pytest
from curated_images import write_scenes

from wildfern.launch.curating import scan
from wildfern.launch.takedown import remove
from wildfern.ssl.curation.manifest import VERSIONS, CurationError, Manifest
from wildfern.ssl.curation.takedowns import TAKEDOWNS, read_takedowns

SMALL = ["tiny.min_side=16"]


@pytest.fixture
def curated(tmp_path):
    """Four scenes below images/deep, and the first of them under another name."""
    write_scenes(tmp_path / "images" / "deep", 4)
    shutil.copy(tmp_path / "images" / "deep" / "scene_00.png", tmp_path / "images" / "same.png")
    scan([str(tmp_path / "images")], tmp_path / "curated", changes=SMALL, processes=1)
    return tmp_path / "curated"


def test_all_files_with_the_content_are_named_and_one_line_is_written(curated):
    found = remove(curated, path=["deep/scene_00.png"])
    assert {one.path for one in found.files} == {"deep/scene_00.png", "same.png"}
    assert len(found.new) == len(read_takedowns(curated)) == 1
    again = remove(curated, path=["same.png"])
    assert ({one.path for one in again.files}, again.new) == ({"deep/scene_00.png", "same.png"}, [])


def test_an_image_may_be_named_in_several_ways(curated, monkeypatch):
    monkeypatch.chdir(curated.parent)
    digest = Manifest(curated).table(["sha256"]).column("sha256").to_pylist()[1]
    for names in (
        {"path": ["./deep/scene_01.png"]},
        {"path": ["images/deep/scene_01.png"]},
        {"path": ["./images/deep/../deep/scene_01.png"]},
        {"path": [f"{curated.parent}/images/deep/scene_01.png"]},
        {"sha256": [digest.upper()]},
    ):
        found = remove(curated, **names, dry_run=True)
        assert [one.path for one in found.files] == ["deep/scene_01.png"], names


def test_a_name_that_is_nearly_right_gets_a_suggestion(curated):
    with pytest.raises(CurationError, match=r"no image of path scene_01\.png; .*; is it deep/scene_01\.png\?"):
        remove(curated, path=["scene_01.png"])
    with pytest.raises(CurationError, match=r"attribution\.csv\)$"):
        remove(curated, path=["nothing.png"])


def test_damaged_former_manifests_stop_no_takedown(curated):
    kept = next((curated / VERSIONS).glob("*.parquet"))
    kept.unlink()  # a hard link to the manifest
    kept.write_bytes(b"PAR1")
    (curated / VERSIONS / "backup.parquet").write_bytes(b"")
    found = remove(curated, path=["same.png"])
    assert len(found.new) == 1
    assert "cannot be read" in " ".join(found.notes)
    assert read_takedowns(curated)[0].sha256 == found.new[0].sha256


def test_a_reason_that_is_no_utf8_is_refused_and_spoils_nothing(curated):
    with pytest.raises(CurationError, match="cannot be written"):
        remove(curated, path=["same.png"], reason="x\udcff y")
    assert not (curated / TAKEDOWNS).exists() or read_takedowns(curated) == []
    assert len(remove(curated, path=["same.png"], reason="as asked – by mail").new) == 1
