"""`curated:DIR`: what was kept, read where it is; takedowns and changed files keep their place and are replaced."""

import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from curated_images import scene, write_scenes
from PIL import Image

from wildfern.ssl.curation.curate import scan
from wildfern.ssl.curation.found_images import find_images
from wildfern.ssl.curation.manifest import Manifest
from wildfern.ssl.curation.policy import Policy, Tiny
from wildfern.ssl.curation.takedowns import add_takedowns
from wildfern.ssl.data import DataError, open_source

SMALL = Policy(tiny=Tiny(action="reject", min_side=16))


@pytest.fixture
def curated(tmp_path):
    """Ten scenes, one of them twice, and a file that is no image."""
    images = tmp_path / "images"
    write_scenes(images, 10)
    shutil.copy(images / "scene_00.png", images / "twin.png")
    (images / "broken.jpg").write_bytes(b"no image")
    scan([str(images)], tmp_path / "curated", SMALL)
    return tmp_path / "curated"


def take_down(folder, path):
    found, _ = find_images(Manifest(folder), {"sha256": set(), "path": {path}, "author": set()})
    add_takedowns(folder, [replace(one, time="2026-05-01T10:00:00+00:00") for one in found])


def test_the_kept_images_are_read_in_order(curated):
    source = open_source(f"curated:{curated}")
    assert source.num_items == 10
    assert source.class_names is None
    read = source.read(np.arange(10))
    assert read.labels is None
    for number, pixels in enumerate(read.pixels):
        np.testing.assert_array_equal(pixels, np.asarray(scene(number)))
    assert source.item_name(3).endswith("images/scene_03.png")
    assert [file.name.split(" ")[1] for file in source.files()] == [f"scene_{n:02d}.png" for n in range(10)]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read([7]).pixels[0], np.asarray(scene(7)))


def test_an_image_taken_down_keeps_its_number_and_is_not_read(curated):
    before = open_source(f"curated:{curated}").read(np.arange(10)).pixels
    take_down(curated, "scene_04.png")
    source = open_source(f"curated:{curated}")
    assert source.num_items == 10
    after = source.read(np.arange(10)).pixels
    others = [n for n in range(10) if n != 4]
    np.testing.assert_array_equal(np.stack(after)[others], np.stack(before)[others])
    assert not np.array_equal(after[4], before[4])
    assert any(np.array_equal(after[4], before[n]) for n in others)
    assert list(source.skipped.values()) == ["taken down on 2026-05-01"]
    assert source.taken_down == [source.item_name(4)]
    assert source.notes[0].startswith(f"curated:{curated}: 1 image taken down since the manifest was written")
    scan([str(curated.parent / "images")], curated, SMALL)
    assert open_source(f"curated:{curated}").num_items == 9


def test_a_former_manifest_stays_readable(curated):
    former = Manifest(curated).sha256
    take_down(curated, "scene_04.png")
    write_scenes(curated.parent / "images", 2, first=20)
    scan([str(curated.parent / "images")], curated, SMALL)
    assert open_source(f"curated:{curated}").num_items == 11
    source = open_source(f"curated:{curated}", manifest=former[:16])
    assert source.num_items == 10
    assert len(source.taken_down) == 1
    with pytest.raises(DataError, match="does not keep the manifest 0123456789"):
        open_source(f"curated:{curated}", manifest="0123456789")
    with pytest.raises(DataError, match="8 digits or more"):
        open_source(f"curated:{curated}", manifest="../x")


def test_a_file_that_changed_since_the_scan_is_replaced(curated):
    Image.new("RGB", (64, 48), "red").save(curated.parent / "images" / "scene_02.png")
    (curated.parent / "images" / "scene_03.png").unlink()
    source = open_source(f"curated:{curated}")
    source.read(np.arange(10))
    reasons = {name.rsplit("/", 1)[1]: reason for name, reason in source.skipped.items()}
    assert reasons["scene_02.png"] == "changed since the scan"
    assert "No such file" in reasons["scene_03.png"]


def test_the_images_may_be_moved(curated):
    shutil.move(curated.parent / "images", curated.parent / "elsewhere")
    source = open_source(f"curated:{curated}", images=str(curated.parent / "elsewhere"))
    np.testing.assert_array_equal(source.read([5]).pixels[0], np.asarray(scene(5)))


def test_a_share_for_testing(curated):
    train, test = (open_source(f"curated:{curated}", split, test_fraction=0.4) for split in ("train", "test"))
    assert train.num_items + test.num_items == 10
    names = [{source.item_name(item) for item in range(source.num_items)} for source in (train, test)]
    assert not names[0] & names[1]
    with pytest.raises(DataError, match="has no test split"):
        open_source(f"curated:{curated}", "test")


def test_what_a_run_records(curated):
    found = open_source(f"curated:{curated}").record()
    assert found == {"manifest": Manifest(curated).sha256, "licenses": {"unknown": 10}, "taken_down": []}


def test_folders_that_are_not_curated(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_source(f"curated:{tmp_path}/nowhere")
    with pytest.raises(DataError, match=r"has no manifest\.parquet"):
        open_source(f"curated:{tmp_path}")
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read"):
        open_source(f"curated:{tmp_path}")


def test_nothing_kept(tmp_path):
    write_scenes(tmp_path / "images", 2)
    scan([str(tmp_path / "images")], tmp_path / "curated", Policy(tiny=Tiny(action="reject", min_side=100)))
    with pytest.raises(DataError, match=r"kept no image; .*review\.html says why"):
        open_source(f"curated:{tmp_path}/curated")
