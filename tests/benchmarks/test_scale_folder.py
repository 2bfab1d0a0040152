"""The benchmark of folders: its tree, and that it leaves the user's cache folder alone."""

import os

from torchvision.datasets import ImageFolder

from wildfern.benchmarks import scale_folder


def test_the_tree_has_so_many_images_in_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(scale_folder, "A_CLASS", 10)
    monkeypatch.setattr(scale_folder, "LINKS", 3)
    scale_folder.make_tree(tmp_path / "images", 25)
    found = ImageFolder(tmp_path / "images")
    assert (len(found), len(found.classes)) == (25, 3)
    assert {image.size for image, _ in found} == {(16 + number, 16) for number in range(8)}
    assert max(os.stat(path).st_nlink for path, _ in found.samples) <= 1 + 3


def test_all_starts_are_compared_with_image_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "mine"))
    monkeypatch.setattr(scale_folder, "AT_REST", 0.0)
    rows = scale_folder.rows(20)
    assert [row["ratio"] is None for row in rows] == [True, False, False, False, False]
    assert rows[2]["what"].startswith("Pillow")
    assert rows[2]["rate"] > 0
    assert {row["case"] for row in rows} == {"20 images"}
    assert os.environ["WILDFERN_CACHE"] == str(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
