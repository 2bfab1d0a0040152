"""Folders: order, faults, labels, splits; on generated folders, then on real uncurated photographs with known faults."""

import csv
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wildfern.ssl.data import DataError, folder_scan, folder_walk, open_source, square
from wildfern.ssl.data.path_store import PathStore
from wildfern.ssl.data.splits import name_in_test
from wildfern.ssl.tracking import Progress
from wildfern.ssl.tracking.current_progress import shown_by


def image(path: Path, color: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(color).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    noise[0, 0] = color
    Image.fromarray(noise).save(path)
    return path


def truncated(path: Path) -> Path:
    data = image(path, 77, (64, 64)).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def first_pixels(source, items=None) -> list[int]:
    return [int(p[0, 0, 0]) for p in source.read(np.arange(source.num_items) if items is None else items).pixels]


def test_order_is_by_name_at_every_depth(tmp_path):
    for color, name in enumerate(["a.png", "b/a.png", "b/c/z.png", "b/d.PNG", "c.png"]):
        image(tmp_path / name.lower(), color)
    (tmp_path / "b/d.png").rename(tmp_path / "b/d.PNG")
    source = open_source(f"folder:{tmp_path}")
    assert first_pixels(source) == [0, 1, 2, 3, 4]
    assert (source.class_names, source.read([0]).labels) == (None, None)
    assert source.item_name(2) == str(tmp_path / "b/c/z.png")


@pytest.mark.parametrize("check_headers", [True, False])
def test_unusable_images_are_left_out_or_replaced_and_listed(tmp_path, check_headers):
    for color in range(6):
        image(tmp_path / f"good{color}.png", color)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "notes.txt").write_text("nor this")
    image(tmp_path / "small.png", 9, (3, 3))
    image(tmp_path / ".hidden.png", 9)
    image(tmp_path / ".cache/x.png", 9)
    truncated(tmp_path / "truncated.png")
    os.symlink(tmp_path / "gone.png", tmp_path / "dangling.png")
    os.symlink(tmp_path / "self.png", tmp_path / "self.png")
    os.mkfifo(tmp_path / "pipe.png")
    source = open_source(f"folder:{tmp_path}", min_side=4, check_headers=check_headers)
    assert source.num_items == (7 if check_headers else 9)
    assert set(first_pixels(source)) == set(range(6))
    assert {Path(name).name: reason.split(":")[0] for name, reason in source.skipped.items()} == {
        "empty.jpg": "empty file",
        "text.jpg": "not an image in a known format",
        "small.png": "too small",
        "truncated.png": "truncated or damaged",
        "dangling.png": "cannot be opened",
        "self.png": "cannot be opened",
        "pipe.png": "not a regular file",
    }


def test_replacements_are_always_the_same_and_scattered(tmp_path):
    for color in range(40):
        image(tmp_path / f"{color:03}.png", color)
    for color in range(10, 20):
        truncated(tmp_path / f"{color:03}.png")
    source = open_source(f"folder:{tmp_path}")
    replacements = first_pixels(source, np.arange(10, 20))
    assert not set(replacements) & set(range(10, 20))
    assert len(set(replacements)) == 10
    again = open_source(f"folder:{tmp_path}")
    assert [first_pixels(again, [item])[0] for item in range(19, 9, -1)] == replacements[::-1]


def test_labels_follow_the_replacement(tmp_path):
    image(tmp_path / "cat/0.png", 1)
    truncated(tmp_path / "dog/0.png")
    source = open_source(f"folder:{tmp_path}", labels="folders")
    assert source.class_names == ["cat", "dog"]
    assert source.read([1, 0]).labels.tolist() == [0, 0]


def test_a_folder_without_readable_images_is_an_error(tmp_path):
    truncated(tmp_path / "a.png")
    truncated(tmp_path / "b.png")
    source = open_source(f"folder:{tmp_path}")
    with pytest.raises(DataError, match=r"none of the 2 images can be read; for example .*b\.png: truncated"):
        source.read([1])


def test_links_are_followed_without_loops(tmp_path):
    image(tmp_path / "elsewhere/x.png", 3)
    image(tmp_path / "root/a/y.png", 4)
    os.symlink(tmp_path / "elsewhere", tmp_path / "root/link")
    os.symlink(tmp_path / "root", tmp_path / "root/a/up")
    assert first_pixels(open_source(f"folder:{tmp_path}/root")) == [4, 3]


def test_folder_labels(tmp_path):
    for color, name in enumerate(["ant/1.png", "ant/deep/2.png", "bee/3.png", "loose.png"]):
        image(tmp_path / name, color)
    source = open_source(f"folder:{tmp_path}", labels="folders")
    assert (source.class_names, source.num_classes) == (["ant", "bee"], 2)
    np.testing.assert_array_equal(source.read([0, 1, 2, 3]).labels, [0, 0, 1, -1])
    with pytest.raises(DataError, match="one folder per class"):
        open_source(f"folder:{tmp_path}/bee", labels="folders")


def test_train_and_val_folders_are_the_splits(tmp_path):
    image(tmp_path / "train/ant/1.png", 1)
    image(tmp_path / "val/bee/2.png", 2)
    train, test = (open_source(f"folder:{tmp_path}", split, labels="folders") for split in ("train", "test"))
    assert (first_pixels(train), first_pixels(test)) == ([1], [2])
    assert train.class_names == test.class_names == ["ant", "bee"]
    assert (train.read([0]).labels[0], test.read([0]).labels[0]) == (0, 1)


def test_a_share_of_the_files_can_be_held_out(tmp_path):
    names = [f"{number:02}.png" for number in range(60)]
    for color, name in enumerate(names):
        image(tmp_path / name, color)
    train, test = (first_pixels(open_source(f"folder:{tmp_path}", s, test_fraction=0.25)) for s in ("train", "test"))
    assert sorted(train + test) == list(range(60))
    assert test == [color for color, name in enumerate(names) if name_in_test(name, 0.25)]
    assert 5 <= len(test) <= 25
    with pytest.raises(DataError, match=r"has no test split.*test_fraction"):
        open_source(f"folder:{tmp_path}", "test")


def test_errors_for_empty_and_missing_folders_list_what_exists(tmp_path):
    with pytest.raises(DataError, match=r"no images under .* \(searched for \.jpg, .*; found no other files\)"):
        open_source(f"folder:{tmp_path}")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty.png").touch()
    with pytest.raises(
        DataError, match=r"none of the 1 images under .* can be used; for example .*empty.png: empty file"
    ):
        open_source(f"folder:{tmp_path}")
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=f"folder .* does not exist; {tmp_path} exists and has photos"):
        open_source(f"folder:{tmp_path}/fotos/2024")
    with pytest.raises(DataError, match="is a file"):
        open_source(f"folder:{tmp_path}/notes.txt")


def test_max_side_and_items_out_of_range(tmp_path):
    image(tmp_path / "a.png", 1, (40, 20))
    source = open_source(f"folder:{tmp_path}", max_side=10)
    assert source.read([0, 0]).pixels.shape == (2, 5, 10, 3)
    with pytest.raises(IndexError, match="item 1 is out of range: the source has 1 images"):
        source.read([1])


def test_names_are_stored_compactly():
    names = [f"album{number % 100:03}/photo_{number:07}.jpg" for number in range(100_000)]
    text = sum(map(len, names))
    tracemalloc.start()
    store = PathStore()
    for name in names:
        store.append(name)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert store.nbytes == text + 8 * (len(names) + 1)
    assert held < 1.3 * store.nbytes
    assert [store[0], store[54_321], store[99_999]] == [names[0], names[54_321], names[99_999]]
    store.append("naïve/\udcff.jpg")
    assert store[100_000] == "naïve/\udcff.jpg"


def truth(shared: Path) -> dict[str, list[tuple[str, str]]]:
    kinds: dict[str, list[tuple[str, str]]] = {}
    with open(shared / "data/uncurated_truth.csv") as file:
        for row in csv.DictReader(file):
            kinds.setdefault(row["truth"], []).append((row["path"], row["of"]))
    return kinds


def test_real_photographs_with_planted_faults(shared):
    root, kinds = shared / "data/uncurated", truth(shared)
    source = open_source(f"folder:{root}")
    images = source.read(np.arange(source.num_items))
    read = {os.path.relpath(source.item_name(i), root): p for i, p in enumerate(images.pixels)}
    skipped = {os.path.relpath(name, root): reason for name, reason in source.skipped.items()}

    faulty = {
        path for kind in ("empty_file", "truncated", "not_an_image", "decompression_bomb") for path, _ in kinds[kind]
    }
    assert set(skipped) == faulty - {"notes.txt"}  # no image's extension: counted among the other files
    for path, _ in kinds["truncated"]:
        assert skipped[path].startswith("truncated")
    for path, _ in kinds["decompression_bomb"]:
        assert skipped[path].startswith("decompression bomb")
    kept = {path for kind, rows in kinds.items() for path, _ in rows} - faulty
    assert kept <= set(read)

    for path, original in kinds["ok_cmyk"] + kinds["ok_palette"]:  # dithering goes when seen from afar
        assert read[path].shape == read[original].shape
        np.testing.assert_allclose(
            square(read[path], 8).astype(float), square(read[original], 8), atol=16, err_msg=path
        )
    for path, original in kinds["ok_greyscale"]:
        assert read[path].shape == read[original].shape
        assert (read[path] == read[path][..., :1]).all()
    for path, original in kinds["ok_alpha"]:
        assert read[path].shape == read[original].shape
    for path, original in kinds["exif_gps_rotated"]:
        stored = np.asarray(Image.open(root / path))
        np.testing.assert_array_equal(read[path], np.rot90(stored, 3), err_msg=f"{path} of {original}")


def test_small_and_narrow_photographs_can_be_left_out(shared):
    root, kinds = shared / "data/uncurated", truth(shared)
    source = open_source(f"folder:{root}", min_side=21)
    small = {os.path.relpath(name, root) for name, reason in source.skipped.items() if reason.startswith("too small")}
    assert small == {path for kind in ("too_small", "extreme_aspect") for path, _ in kinds[kind]}


def test_a_scan_counts_files_and_headers(tmp_path, monkeypatch):
    for number in range(5):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(folder_walk, "_SHOWN_EVERY", 2)
    monkeypatch.setattr(folder_scan, "_CHUNK", 3)
    lines = []
    progress = Progress(lines.append, every=0.0)
    with shown_by(progress):
        progress.part("opening")
        open_source(f"folder:{tmp_path}")
    open_source(f"folder:{tmp_path}")  # outside of the block nothing is shown
    assert lines == [
        "opening",
        f"opening: scanning {tmp_path}: 2 files",
        f"opening: scanning {tmp_path}: 4 files",
        "opening",
        "opening: checking headers, 0/5 files",
        "opening: checking headers, 3/5 files",
        "opening",
    ]
