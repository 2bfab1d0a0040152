"""Patterns of paths, and which files are images and masks in each layout: compared with what was written."""

import itertools
import re
from pathlib import Path

import pytest
from PIL import Image

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.mask_layouts import Form, Pair, find_pairs, matching

DRIVE = (
    "training/images/21_training.tif training/images/22_training.tif training/1st_manual/21_manual1.gif "
    "training/1st_manual/22_manual1.gif training/mask/21_training_mask.gif training/mask/22_training_mask.gif "
    "test/images/01_test.tif test/1st_manual/01_manual1.gif test/2nd_manual/01_manual2.gif test/mask/01_test_mask.gif"
)


def write(root: Path, names: str) -> Path:
    """A tiny file at each path; what is in them does not matter here."""
    for name in names.split():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def pairs(root: Path, *arguments, **named) -> dict[str, Pair]:
    return find_pairs(root, *arguments, **named).pairs


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a/{name}.png", {"1": "a/1.png", "2.x": "a/2.x.png", "1_mask": "a/1_mask.png"}),
        ("a/{name}_mask.png", {"1": "a/1_mask.png"}),
        (
            "a/{name}.*",
            {"1": "a/1.png", "2.x": "a/2.x.png", "1_mask": "a/1_mask.png", "3": "a/3.JPG", "4": "a/4.ppm.gz"},
        ),
        ("{name}/image.png", {"c": "c/image.png", "d": "d/image.png"}),
        ("{name}/{name}.png", {"c": "c/c.png"}),
        ("b{name}/{name}.png", {"1": "b1/1.png"}),
        ("{name}{name}.gif", {"x": "xx.gif"}),
        ("{name}.png", {}),
        ("gone/{name}.png", {}),
        ("xx.gif/{name}.png", {}),
        ("[a]/{name}.png", {"1": "[a]/1.png"}),
    ],
)
def test_a_pattern_matches_the_paths_that_it_describes(tmp_path, pattern, found):
    write(
        tmp_path,
        "a/1.png a/2.x.png a/1_mask.png a/3.JPG a/4.ppm.gz a/5.txt a/.6.png a/._1.png a/Thumbs.db .h/image.png",
    )
    write(tmp_path, "c/image.png c/c.png d/image.png d/x.png b1/1.png b1/2.png xx.gif xy.gif [a]/1.png")
    (tmp_path / "a/folder.png").mkdir()
    clashes: list[str] = []
    assert matching(tmp_path, pattern, clashes) == found
    assert clashes == []


def test_two_files_with_one_name_are_told_and_packed_ones_passed_over(tmp_path):
    write(tmp_path, "images/1.png images/1.jpg images/2.ppm images/2.ppm.gz masks/1.png masks/2.png")
    clashes: list[str] = []
    assert matching(tmp_path, "images/{name}.*", clashes)["2"] == "images/2.ppm"
    assert clashes == [
        f"{tmp_path} has images/1.jpg and images/1.png, both for images/{{name}}.*: remove one, or write the extension"
    ]
    with pytest.raises(DataError, match=r"images/1.jpg and images/1.png, both for"):
        find_pairs(tmp_path, "train")
    assert list(pairs(tmp_path, "train", given=Form("images/{name}.png", ("masks/{name}.png",)), layout="pairs")) == [
        "1"
    ]


def test_drive(tmp_path):
    write(tmp_path, DRIVE)
    train, test = (find_pairs(tmp_path, split) for split in ("train", "test"))
    assert (train.layout, train.folder, test.folder) == ("drive", "training", "test")
    assert train.pairs == {
        number: Pair(
            f"training/images/{number}_training.tif",
            f"training/1st_manual/{number}_manual1.gif",
            f"training/mask/{number}_training_mask.gif",
        )
        for number in ("21", "22")
    }
    assert test.pairs == {
        "01": Pair("test/images/01_test.tif", "test/1st_manual/01_manual1.gif", "test/mask/01_test_mask.gif")
    }
    assert pairs(tmp_path, "test", annotator=2)["01"].mask == "test/2nd_manual/01_manual2.gif"
    assert train.notes == test.notes == []
    with pytest.raises(
        DataError, match=r"annotator: 2, but the train images of .* have masks of 1 annotator in this layout"
    ):
        find_pairs(tmp_path, "train", annotator=2)
    with pytest.raises(DataError, match=r"annotator: 3, but .* 2 annotators"):
        find_pairs(tmp_path, "test", annotator=3)
    with pytest.raises(DataError, match="annotator: 0, but"):
        find_pairs(tmp_path, "test", annotator=0)


def test_drive_without_masks_of_test_says_how_to_split_its_train_images(tmp_path):
    write(tmp_path, " ".join(name for name in DRIVE.split() if "test/1st" not in name and "test/2nd" not in name))
    assert len(pairs(tmp_path, "train")) == 2
    with pytest.raises(DataError) as raised:
        find_pairs(tmp_path, "test")
    message = str(raised.value)
    assert "the test images of" in message
    assert "have no masks" in message
    assert "01_manual1.* is missing: the mask of test/images/01_test.tif" in message
    images, masks, regions = re.findall(r"'([^']+)'", message)
    found = pairs(tmp_path, "train", given=Form(images, (masks,), regions))
    assert found == pairs(tmp_path, "train")
    (tmp_path / "training/1st_manual/22_manual1.gif").unlink()
    with pytest.raises(DataError, match=r"22_manual1.\* is missing: the mask of training/images/22_training.tif"):
        find_pairs(tmp_path, "train")
    (tmp_path / "test/images/01_test.tif").unlink()
    with pytest.raises(DataError, match=r"has no test images: no file matches test/images/\{name\}_test"):
        find_pairs(tmp_path, "test")


@pytest.mark.parametrize(
    ("images", "labels"),
    [("stare-images/", ("labels-ah/", "labels-vk/")), ("images/", ("labels-ah/", "labels-vk/")), ("", ("", ""))],
)
@pytest.mark.parametrize("end", ["ppm", "ppm.gz"])
def test_stare(tmp_path, images, labels, end):
    for number in ("0001", "0002"):
        write(tmp_path, f"{images}im{number}.{end} {labels[0]}im{number}.ah.{end} {labels[1]}im{number}.vk.{end}")
    write(tmp_path, f"{images}im0399.{end}")
    for annotator, who in ((1, "ah"), (2, "vk")):
        found = find_pairs(tmp_path, "train", annotator=annotator)
        assert (found.layout, found.folder) == ("stare", None)
        folder = labels[annotator - 1]
        assert found.pairs == {
            name: Pair(f"{images}{name}.{end}", f"{folder}{name}.{who}.{end}", None) for name in ("im0001", "im0002")
        }
        assert found.notes == [f"{tmp_path}: images without a mask, which are left out: 1; folder:PATH reads them"]


@pytest.mark.parametrize("folder", ["", "images/"])
def test_chase_db1(tmp_path, folder):
    names = [f"{child:02}{eye}" for child in range(1, 15) for eye in "LR"]
    for name in names:
        write(tmp_path, " ".join(f"{folder}Image_{name}{end}" for end in (".jpg", "_1stHO.png", "_2ndHO.png")))
    found = find_pairs(tmp_path, "train", annotator=2)
    assert found.layout == "chase_db1"
    assert found.pairs == {
        name: Pair(f"{folder}Image_{name}.jpg", f"{folder}Image_{name}_2ndHO.png", None) for name in names
    }
    assert sorted(found.test_names) == names[20:]


def test_cfd(tmp_path):
    write(
        tmp_path,
        "image/001.jpg image/002.jpg image/003.jpg groundTruth/001.mat groundTruth/002.mat seg/001.png seg/003.png",
    )
    found = find_pairs(tmp_path, "train")
    assert found.layout == "cfd"
    assert found.pairs == {name: Pair(f"image/{name}.jpg", f"groundTruth/{name}.mat", None) for name in ("001", "002")}
    assert found.notes == [f"{tmp_path}: images without a mask, which are left out: 1; folder:PATH reads them"]
    for path in (tmp_path / "groundTruth").iterdir():
        path.unlink()
    assert pairs(tmp_path, "test") == {
        name: Pair(f"image/{name}.jpg", f"seg/{name}.png", None) for name in ("001", "003")
    }


@pytest.mark.parametrize(("images", "masks"), [("images", "masks"), ("img", "gt")])
@pytest.mark.parametrize("train", ["train/{}/", "train/"])
def test_xcad_has_masks_of_test_only(tmp_path, images, masks, train):
    folder = train.format(images)
    write(tmp_path, f"{folder}000_1.png {folder}000_2.png test/{images}/7_3.png test/{images}/8_1.png")
    write(tmp_path, f"test/{masks}/7_3.png test/{masks}/8_1.png test/{masks}/9.png")
    found = find_pairs(tmp_path, "test")
    assert (found.layout, found.folder) == ("xcad", "test")
    assert found.pairs == {
        name: Pair(f"test/{images}/{name}.png", f"test/{masks}/{name}.png", None) for name in ("7_3", "8_1")
    }
    assert found.notes == [f"{tmp_path}: masks without an image, which are left out: 1"]
    with pytest.raises(
        DataError, match=r"the train images of .* have no masks: .*; folder:PATH reads images without masks"
    ):
        find_pairs(tmp_path, "train")
    of_train = "masks" if train == "train/" else masks
    write(tmp_path, f"train/{of_train}/000_2.png")
    found = find_pairs(tmp_path, "train", "xcad")
    assert found.pairs == {"000_2": Pair(f"{folder}000_2.png", f"train/{of_train}/000_2.png", None)}


@pytest.mark.parametrize("one", ["CrackTree260", "CRKWH100", "CrackLS315", "Stone331"])
@pytest.mark.parametrize(("images", "masks"), [("{}", "{}_gt"), ("{}", "{}_gt/gt"), ("{}_img", "{}_gt")])
def test_cracktree(tmp_path, one, images, masks):
    images, masks = images.format(one), masks.format(one)
    write(
        tmp_path,
        f"{images}/6192.jpg {images}/DSCN6428.JPG {masks}/6192.bmp {masks}/DSCN6428.bmp Stone331_mask/6192.png",
    )
    found = find_pairs(tmp_path, "train")
    region = "Stone331_mask/6192.png" if one == "Stone331" else None
    assert found.layout == "cracktree"
    assert found.pairs == {
        "6192": Pair(f"{images}/6192.jpg", f"{masks}/6192.bmp", region),
        "DSCN6428": Pair(f"{images}/DSCN6428.JPG", f"{masks}/DSCN6428.bmp", None),
    }


def test_of_several_sets_or_folders_of_masks_one_is_to_be_chosen(tmp_path):
    write(tmp_path / "sets", "CRKWH100/1.png CRKWH100_gt/1.bmp CrackTree260/2.jpg CrackTree260_gt/2.bmp")
    with pytest.raises(
        DataError, match=r"CrackTree260/.* and CRKWH100/.*: choose one by the patterns images and masks"
    ):
        find_pairs(tmp_path / "sets", "train")
    given = Form("CRKWH100/{name}.*", ("CRKWH100_gt/{name}.*",))
    assert pairs(tmp_path / "sets", "train", given=given) == {"1": Pair("CRKWH100/1.png", "CRKWH100_gt/1.bmp", None)}
    write(tmp_path / "pairs", "images/1.png masks/1.png labels/1.png")
    with pytest.raises(
        DataError, match=r"images/\{name\}.\* with masks/\{name\}.\* and images/\{name\}.\* with labels/"
    ):
        find_pairs(tmp_path / "pairs", "train")


@pytest.mark.parametrize(
    ("images", "masks"), itertools.product(["images", "img"], ["masks", "labels", "annotations", "gt"])
)
def test_pairs_of_equal_names(tmp_path, images, masks):
    write(tmp_path, f"{images}/b.jpg {images}/a.png {masks}/a.png {masks}/b.gif {images}/.c.png {images}/notes.txt")
    found = find_pairs(tmp_path, "test")
    assert (found.layout, found.folder, found.test_names) == ("pairs", None, frozenset())
    assert list(found.pairs.items()) == [
        ("a", Pair(f"{images}/a.png", f"{masks}/a.png", None)),
        ("b", Pair(f"{images}/b.jpg", f"{masks}/b.gif", None)),
    ]


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "val"), ("train", "eval")])
def test_pairs_in_folders_of_splits(tmp_path, train, test):
    for folder, name in ((train, "a"), (test, "b")):
        write(tmp_path, f"{folder}/images/{name}.png {folder}/masks/{name}.png")
    for split, folder, name in (("train", train, "a"), ("test", test, "b")):
        found = find_pairs(tmp_path, split)
        assert (found.layout, found.folder, found.notes) == ("pairs", folder, [])
        assert found.pairs == {name: Pair(f"{folder}/images/{name}.png", f"{folder}/masks/{name}.png", None)}


def test_a_validation_folder_beside_test_is_passed_over_with_a_note(tmp_path):
    for folder in ("train", "val", "test"):
        write(tmp_path, f"{folder}/image/{folder}.png {folder}/image/{folder}_mask.png")
    given = Form("image/{name}.png", ("image/{name}_mask.png",))
    found = find_pairs(tmp_path, "test", given=given)
    assert found.pairs == {"test": Pair("test/image/test.png", "test/image/test_mask.png", None)}
    assert found.notes == [f"{tmp_path}: passed over val"]


def test_a_mask_beside_its_image_is_no_image(tmp_path):
    write(tmp_path, "1.png 1_mask.png 1_fov.png 2.png 2_mask.png")
    given = Form("{name}.png", ("{name}_mask.png",), "{name}_fov.png")
    assert pairs(tmp_path, "train", given=given) == {
        "1": Pair("1.png", "1_mask.png", "1_fov.png"),
        "2": Pair("2.png", "2_mask.png", None),
    }


def test_a_missing_mask_is_an_error_where_each_image_has_one(tmp_path):
    write(tmp_path, "images/1.png images/2.png masks/1.png")
    with pytest.raises(
        DataError, match=r"/masks/2.\* is missing: the mask of images/2.png; .*; folder:PATH reads images"
    ):
        find_pairs(tmp_path, "train")
    (tmp_path / "masks/1.png").rename(tmp_path / "masks/1_mask.png")
    (tmp_path / "images/2.png").unlink()
    with pytest.raises(DataError, match="where names differ, give patterns: ") as raised:
        find_pairs(tmp_path, "train")
    images, masks = re.findall(r"'([^']+)'", str(raised.value))
    assert pairs(tmp_path, "train", given=Form(images, (masks,))) == {
        "1": Pair("images/1.png", "masks/1_mask.png", None)
    }


def test_a_folder_without_a_known_layout_is_refused_with_what_was_looked_for(tmp_path):
    write(tmp_path, "photos/1.png truth/1_gt.png")
    with pytest.raises(DataError) as raised:
        find_pairs(tmp_path, "train")
    message = str(raised.value)
    for part in ("has photos, truth", "drive: test/images/{name}_test.*", "pairs: images/{name}.* with masks/{name}.*"):
        assert part in message
    for layout in ("stare", "chase_db1", "cfd", "xcad", "cracktree"):
        assert f"{layout}: " in message
    assert "images: 'images/{name}.png' and masks: 'masks/{name}_mask.png'" in message
    with pytest.raises(DataError, match=r"known \(stare: .*ah\.\*\)\. Give") as raised:
        find_pairs(tmp_path, "train", "stare")
    assert "drive" not in str(raised.value)
    with pytest.raises(
        DataError, match=r"no files match images: photos/\{name\}.jpg and masks: truth/.*; it has photos, truth"
    ):
        find_pairs(tmp_path, "train", given=Form("photos/{name}.jpg", ("truth/{name}_gt.png",)))
    with pytest.raises(DataError, match="patterns of layout pairs; leave them out for layout stare"):
        find_pairs(tmp_path, "train", "stare", Form("photos/{name}.png", ("truth/{name}_gt.png",)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has no files, and no images with masks"):
        find_pairs(tmp_path / "empty", "train")


def test_linked_folders_are_read_as_folders(tmp_path):
    write(tmp_path / "disk", "pictures/1.png truth/1.png")
    root = tmp_path / "set"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "disk/pictures")
    (root / "masks").symlink_to(tmp_path / "disk/truth")
    assert pairs(root, "train") == {"1": Pair("images/1.png", "masks/1.png", None)}
    Image.new("L", (2, 2)).save(root / "images/real.png")
    (root / "masks/real.png").symlink_to(root / "images/real.png")
    assert pairs(root, "train")["real"] == Pair("images/real.png", "masks/real.png", None)
