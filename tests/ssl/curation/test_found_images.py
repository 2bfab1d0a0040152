"""Images that are looked up in a manifest, with their copies, and the difference of two manifests."""

import os

import numpy as np
import pytest
from curated_images import scene, write_scenes
from PIL import Image

from wildfern.ssl.curation.curate import decide_again, scan
from wildfern.ssl.curation.found_images import Difference, difference, find_images
from wildfern.ssl.curation.manifest import Manifest, stored_path
from wildfern.ssl.curation.policy import Policy, Rule, Tiny
from wildfern.ssl.curation.takedowns import read_takedowns


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Two folders: scenes, copies of scene 0 (bytes, pixels, re-encoded), a flat image, files that are no images."""
    tmp_path = tmp_path_factory.mktemp("found")
    one, two = tmp_path / "one", tmp_path / "two"
    write_scenes(one / "deep", 4)
    write_scenes(two / "deep", 2, first=10)
    (two / "bytes.png").write_bytes((one / "deep" / "scene_00.png").read_bytes())
    scene(0).save(two / "pixels.bmp")
    scene(0).save(two / "encoded.jpg", quality=92)
    (two / "deep" / "scene_01.png").write_bytes((two / "deep" / "scene_10.png").read_bytes())
    Image.fromarray(np.full((48, 64, 3), 9, np.uint8)).save(one / "flat.png")
    (one / "notes.txt").write_text("no image")
    (one / "dangling.png").symlink_to(tmp_path / "nowhere")
    with open(os.fsencode(str(two)) + b"/\xff.png", "wb") as file:
        scene(12).save(file, "PNG")
    (tmp_path / "rights.csv").write_text(
        "path,author\none/deep/scene_01.png,Ada\none/deep/scene_02.png,Ada\none/flat.png,Grace\n"
    )
    scan([f"folder:{one}", f"folder:{two}"], tmp_path / "c", Policy(), metadata=[tmp_path / "rights.csv"])
    return Manifest(tmp_path / "c")


def names(found) -> list[str]:
    return sorted(f"{os.path.basename(one.container)}/{one.path}" for one in found[0])


ZERO = ["one/deep/scene_00.png", "two/bytes.png", "two/encoded.jpg", "two/pixels.bmp"]


@pytest.mark.parametrize("path", ["deep/scene_00.png", "{}/one/deep/scene_00.png", "pixels.bmp", "{}/two/encoded.jpg"])
def test_a_path_finds_an_image_with_all_its_copies(manifest, path):
    found = find_images(manifest, {"path": {path.format(manifest.folder.parent)}})
    assert (names(found), found[1]) == (ZERO, [])


def test_a_digest_finds_an_image_with_all_its_copies(manifest):
    digests = {row["path"]: row["sha256"] for row in manifest.table(["path", "sha256"]).to_pylist()}
    assert names(find_images(manifest, {"sha256": {digests["bytes.png"]}})) == ZERO
    assert names(find_images(manifest, {"sha256": {digests["deep/scene_03.png"]}})) == ["one/deep/scene_03.png"]


def test_an_author_finds_all_images_of_them(manifest):
    found = find_images(manifest, {"author": {"Ada"}})
    assert names(found) == ["one/deep/scene_01.png", "one/deep/scene_02.png"]
    assert find_images(manifest, {"author": {"ada"}}) == ([], [("author", "ada")], {})


def test_a_relative_path_finds_the_images_of_all_sources_and_a_full_one_one_of_them(manifest):
    both = ["one/deep/scene_01.png", "two/deep/scene_01.png", "two/deep/scene_10.png"]
    assert names(find_images(manifest, {"path": {"deep/scene_01.png"}})) == both
    full = f"{manifest.folder.parent}/one/deep/scene_01.png"
    assert names(find_images(manifest, {"path": {full}})) == both[:1]


def test_a_path_that_is_no_utf8_is_found_by_its_bytes(manifest):
    relative, full = "\udcff.png", os.fsdecode(os.fsencode(manifest.folder.parent) + b"/two/\xff.png")
    for path in (relative, full, stored_path(relative)):
        found, missing, _ = find_images(manifest, {"path": {path}})
        assert (len(found), missing) == (1, [])
        assert found[0].path.endswith(".png")


def test_values_that_no_image_has_are_returned_and_the_others_found(manifest):
    wanted = {"sha256": {"0" * 64}, "path": {"deep/scene_02.png", "scene_02.png", "one/deep"}, "author": {"Ada", "Bob"}}
    found = find_images(manifest, wanted)
    assert names(found) == ["one/deep/scene_01.png", "one/deep/scene_02.png"]
    assert found[1] == [("author", "Bob"), ("path", "one/deep"), ("path", "scene_02.png"), ("sha256", "0" * 64)]
    assert find_images(manifest, {}) == ([], [], {})


def test_what_cannot_be_opened_is_not_found(manifest):
    found = find_images(manifest, {"path": {"dangling.png", "deep/scene_03.png"}})
    assert (names(found), found[1]) == (["one/deep/scene_03.png"], [("path", "dangling.png")])


def test_a_takedown_has_what_tells_the_image_again(manifest):
    rows = {row["path"]: row for row in manifest.table(["path", "sha256", "pixels_sha256", "phash"]).to_pylist()}
    (one,), *_ = find_images(manifest, {"path": {"deep/scene_03.png"}})
    row = rows["deep/scene_03.png"]
    assert (one.sha256, one.pixels_sha256, one.phash) == (row["sha256"], row["pixels_sha256"], row["phash"])
    assert (one.source, one.container) == (f"folder:{manifest.folder.parent}/one", f"{manifest.folder.parent}/one")
    assert (one.time, one.reason) == ("", "")
    (flat,), *_ = find_images(manifest, {"author": {"Grace"}})
    assert flat.phash is None  # a hash of nothing would be that of every flat image
    assert flat.pixels_sha256 == rows["flat.png"]["pixels_sha256"]


def test_difference_tells_what_was_added_removed_changed_and_decided_otherwise(tmp_path):
    images = tmp_path / "images"
    write_scenes(images, 6)
    scene(4, (24, 20)).save(images / "small.png")
    first = scan([f"folder:{images}"], tmp_path / "one", Policy()).manifest
    assert difference(first, first) == Difference()
    (images / "scene_00.png").unlink()
    scene(20).save(images / "scene_01.png")
    scene(21, (20, 20)).save(images / "scene_02.png")
    write_scenes(images, 1, first=30)
    scene(3).save(images / "copy.png")
    os.utime(images / "scene_05.png", (1, 1))  # the same content
    second = scan([f"folder:{images}"], tmp_path / "two", Policy()).manifest
    found = difference(first, second)
    assert found.added == ["copy.png", "scene_30.png"]
    assert found.removed == ["scene_00.png"]
    assert found.changed == ["scene_01.png", "scene_02.png"]
    assert sorted(found.decisions) == [
        ("scene_02.png", "keep", "reject (tiny)"),
        ("scene_03.png", "keep", "reject (exact_duplicate)"),
    ]
    back = difference(second, first)
    assert (back.added, back.removed) == (found.removed, found.added)
    assert sorted(back.decisions) == sorted((path, after, before) for path, before, after in found.decisions)


def test_difference_tells_another_rule_for_the_same_decision(tmp_path):
    scene(1, (24, 20)).save(tmp_path / "small.png") or (tmp_path / "images").mkdir()
    (tmp_path / "small.png").rename(tmp_path / "images" / "small.gif")  # a PNG
    first = scan([f"folder:{tmp_path}/images"], tmp_path / "c", Policy()).manifest
    version = first.sha256[:16]
    strict = Policy(tiny=Tiny(action="review", min_side=30), wrong_extension=Rule(action="reject"))
    second = decide_again(tmp_path / "c", strict).manifest
    found = difference(Manifest(tmp_path / "c", version), second)
    assert found == Difference(decisions=[("small.gif", "reject (tiny)", "reject (tiny, wrong_extension)")])
    assert read_takedowns(tmp_path / "c") == []
