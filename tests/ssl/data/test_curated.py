"""`curated:DIR`: what was kept, read where it is; takedowns and changed files keep their place and are replaced."""

import pickle
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curated_images import scene, write_scenes
from PIL import Image

from wildfern.ssl.curation.curate import scan
from wildfern.ssl.curation.found_images import find_images
from wildfern.ssl.curation.manifest import Manifest
from wildfern.ssl.curation.policy import Policy, Rule, Tiny
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
    found, *_ = find_images(Manifest(folder), {"sha256": set(), "path": {path}, "author": set()})
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
    assert found == {
        "folder": str(curated),
        "manifest": Manifest(curated).sha256,
        "licenses": {"unknown": 10},
        "takedowns": 0,
        "taken_down": 0,
    }
    take_down(curated, "scene_04.png")
    source = open_source(f"curated:{curated}")
    assert (source.record()["takedowns"], source.record()["taken_down"]) == (1, 1)  # its twin has the same digest
    assert source.taken_down_since(0) == [source.item_name(4)]
    assert source.taken_down_since(1) == []


def test_a_copy_of_the_pixels_in_another_file_is_taken_down_too(tmp_path):
    write_scenes(tmp_path / "images", 3)
    scene(1).save(tmp_path / "images" / "other.bmp")
    keep = replace(SMALL, exact_duplicate=Rule(action="keep"))
    scan([str(tmp_path / "images")], tmp_path / "curated", keep)
    found, *_ = find_images(Manifest(tmp_path / "curated"), {"path": {"scene_01.png"}})
    add_takedowns(tmp_path / "curated", [one for one in found if one.path == "scene_01.png"])
    source = open_source(f"curated:{tmp_path}/curated")
    assert sorted(name.rsplit("/")[-1] for name in source.taken_down) == ["other.bmp", "scene_01.png"]


def test_a_manifest_that_was_copied_alone_is_still_that_version(curated, tmp_path):
    version = Manifest(curated).sha256[:16]
    (tmp_path / "copy").mkdir()
    shutil.copy(curated / "manifest.parquet", tmp_path / "copy")
    assert open_source(f"curated:{tmp_path}/copy", manifest=version).num_items == 10
    kept = curated / "manifests" / f"{version}.parquet"
    kept.unlink()
    scan([str(tmp_path / "images")], curated, SMALL)
    assert kept.exists()
    other = scan([str(tmp_path / "images")], tmp_path / "other", Policy()).manifest
    kept.unlink()
    shutil.copy(other.path, kept)
    with pytest.raises(DataError, match="not the manifest"):
        open_source(f"curated:{curated}", manifest=version)


@pytest.mark.parametrize(
    ("column", "value"), [("container", None), ("path", None), ("bytes", None), ("place", None), ("sha256", "zz")]
)
def test_the_manifest_of_a_stranger(curated, column, value):
    table = pq.read_table(curated / "manifest.parquet")
    index = table.schema.get_field_index(column)
    changed = table.column(column).to_pylist()
    changed[3] = value
    table = table.set_column(index, table.schema.field(index), pa.array(changed, table.schema.field(index).type))
    pq.write_table(table, curated / "manifest.parquet")
    with pytest.raises(DataError, match=r"manifest\.parquet is damaged"):
        open_source(f"curated:{curated}")


def test_a_path_out_of_its_folder_is_not_read(curated):
    table = pq.read_table(curated / "manifest.parquet")
    index = table.schema.get_field_index("path")
    paths = ["../images/" + path for path in table.column("path").to_pylist()]
    pq.write_table(table.set_column(index, table.schema.field(index), pa.array(paths)), curated / "manifest.parquet")
    with pytest.raises(DataError, match=r"none of the 10 images can be read; .*not in its folder"):
        open_source(f"curated:{curated}").read([0])


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
