"""Which folders are the train and test split: recognized in usual layouts, refused where a layout has several meanings."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wildfern.ssl.data import DataError, open_source


@pytest.fixture
def tree(tmp_path):
    def make(*names: str) -> Path:
        for number, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".jpg", ".png"):
                Image.new("RGB", (4, 4), (number, 0, 0)).save(path, "PNG")
            else:
                path.write_text("x")
        return tmp_path

    return make


def names(path: Path, split: str, **arguments) -> list[str]:
    source = open_source(f"folder:{path}", split, **arguments)
    return [str(Path(source.item_name(i)).relative_to(path)) for i in range(source.num_items)]


RECOGNIZED = {
    "train and valid": (["train/cat/1.png", "valid/cat/2.png"], "train", "valid"),
    "any case, test before valid": (["Training/1.png", "VAL/2.png", "Testing/3.png"], "Training", "Testing"),
    "eval": (["train/1.png", "eval/2.png", "unlabeled/3.png"], "train", "eval"),
    "years": (["train2017/1.jpg", "val2017/1.jpg", "annotations/instances.json"], "train2017", "val2017"),
    "YOLO": (
        ["train/images/1.jpg", "train/labels/1.txt", "valid/images/2.jpg", "valid/labels/2.txt"],
        "train",
        "valid",
    ),
    "YOLO, images outside": (
        ["images/train/1.jpg", "labels/train/1.txt", "images/val/2.jpg", "data.yaml"],
        "images/train",
        "images/val",
    ),
    "beside lists of files (ImageNet)": (
        ["A/Data/CLS/train/n01/1.jpg", "A/Data/CLS/val/2.jpg", "A/Annotations/CLS/val/1.xml", "A/ImageSets/train.txt"],
        "A/Data/CLS/train",
        "A/Data/CLS/val",
    ),
    "folders within folders of the same split": (
        ["train/train/cat/1.jpg", "test/Test/cat/2.jpg"],
        "train/train",
        "test/Test",
    ),
    "in the only folder": (
        ["photos/train/a/1.jpg", "photos/dev/a/1.jpg", "__MACOSX/photos/train/a/._1.jpg"],
        "photos/train",
        "photos/dev",
    ),
}


@pytest.mark.parametrize("layout", RECOGNIZED)
def test_recognized_layouts(tree, layout):
    files, train, test = RECOGNIZED[layout]
    root = tree(*files)
    for split, folder in (("train", train), ("test", test)):
        assert [Path(name).is_relative_to(folder) for name in names(root, split)] == [True]
        source = open_source(f"folder:{root}", split)
        assert source.split_words == f"folder {folder}"
        assert source.notes[0].startswith(
            f"{root}: train images are those of folder {train}, test images are those of folder {test}"
        )


def test_passed_over_folders_are_named(tree):
    root = tree("train/1.png", "valid/2.png", "test/3.png", "more/4.png", "labels/1.txt")
    note = open_source(f"folder:{root}").notes[0]
    assert note.endswith("test images are those of folder test; passed over folders valid and more")
    assert names(root, "test", test_folder="valid") == ["valid/2.png"]


REFUSED = {
    "two train folders": (["train/1.png", "Train/2.png", "val/3.png"], "folders Train and train for the train split.*set tr"),
    "two test folders": (["train/1.png", "val/2.png", "valid/3.png"], "folders val and valid for the valid split.*set test_f"),
    "only a test folder": (["test/cat/1.png"], "a folder test and no folder train: set train_folder"),
    "a class named train": (["train/1.png", "bus/2.png"], "train beside a folder bus: .* train_folder: . if it is a class"),
    "test beside classes": (["test/1.png", "cat/2.png"], "test beside a folder cat: set train_folder: . and test_folder: t"),
    "splits in classes": (["cat/train/1.png", "cat/test/1.png", "dog/train/1.png"], r"cat/train, cat/test\).*'\*/train' and"),
    "loose images": (["train/1.png", "test/2.png", "3.png"], "has images beside folders test and train: set train_folder: tr"),
    "words in names": (["train_set/1.png", "test_set/2.png"], "which look like splits: set train_folder: train_set and test"),
    "words beside others": (["seg_train/1.png", "seg_test/2.png", "x/3.png"], "train_folder: seg_train and test_folder: seg_t"),
    "letters after words": (["trainA/1.png", "trainB/2.png", "testA/3.png"], "train_folder: trainA and test_folder: testA, or"),
    "abbreviations": (["imagesTr/1.png", "imagesTs/2.png", "labelsTr/3.png"], "train_folder: imagesTr and test_folder: imagesTs"),
    "in sites": (["a/x/train/1.png", "a/x/val/1.png", "a/y/train/1.png"], r"folder: 'a/\*/train' and test_folder: 'a/\*/val'"),
    "words in sites": (["a/x/train_1/1.png", "a/y/2.png", "a/x/val_1/1.png"], r"'a/\*/train_1' and test_folder: 'a/\*/val_1'"),
}  # fmt: skip


@pytest.mark.parametrize("layout", REFUSED)
def test_layouts_with_several_meanings_are_refused_in_one_line(tree, layout):
    files, message = REFUSED[layout]
    root = tree(*files)
    for split in ("train", "test"):
        with pytest.raises(DataError, match=message) as caught:
            open_source(f"folder:{root}", split, test_fraction=0.2)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "arguments", "train", "test"),
    [
        (["train/1.png", "Train/2.png", "val/3.png"], {"train_folder": "Train"}, ["Train/2.png"], ["val/3.png"]),
        (["test/a.png"], {"train_folder": "test"}, ["test/a.png"], None),
        (["bus/1.png", "train/2.png"], {"train_folder": "."}, ["bus/1.png", "train/2.png"], None),
        (["cat/1.png", "test/cat/2.png"], {"train_folder": ".", "test_folder": "test"}, ["cat/1.png"], ["test/cat/2.png"]),
        (["0.png", "train/1.png", "test/2.png"], {"train_folder": "train"}, ["train/1.png"], ["test/2.png"]),
        (
            ["x/cat/train/1.png", "x/cat/test/2.png", "x/dog/train/3.png", "x/dog/new/4.png"],
            {"train_folder": "x/*/train", "test_folder": "x/*/test"},
            ["x/cat/train/1.png", "x/dog/train/3.png"],
            ["x/cat/test/2.png"],
        ),
    ],
)  # fmt: skip
def test_folders_can_be_named(tree, files, arguments, train, test):
    root = tree(*files)
    for split, expected in (("train", train), ("test", test)):
        if expected is not None:
            assert names(root, split, **arguments) == expected


def test_named_folders_are_checked(tree):
    root = tree("train/cat/1.png", "test/cat/2.png")
    with pytest.raises(DataError, match=r"folder .*/no_such does not exist; .* has test, train"):
        names(root, "train", train_folder="no_such")
    with pytest.raises(DataError, match=r"train_folder: no folder \*/x in"):
        names(root, "train", train_folder="*/x")
    with pytest.raises(DataError, match="are the same folder, folder train"):
        names(root, "train", test_folder="train")
    with pytest.raises(DataError, match="no folder train: set train_folder"):
        names(tree("a/b/new/3.png") / "a", "train", test_folder="b")


def test_only_a_train_folder_is_split_by_names(tree):
    root = tree(*(f"train/{'cat' if n % 2 else 'dog'}/{n}.png" for n in range(20)))
    train, test = (open_source(f"folder:{root}", s, test_fraction=0.3, labels="folders") for s in ("train", "test"))
    assert train.num_items + test.num_items == 20
    assert train.class_names == test.class_names == ["cat", "dog"]
    assert test.split_words == "folder train, about 30 % of the files, by a hash of their names"


def test_all_images_in_training_is_said(tree):
    root = tree("cat/1.png", "test/2.png")
    assert "all images are train images, also those of a folder test" in str(
        open_source(f"folder:{root}", train_folder=".").notes
    )


def test_classes_from_folder_names_are_said_and_unseen_ones_named(tree):
    root = tree("train/cat/1.png", "train/dog/2.png", "valid/cat/3.png", "valid/fox/4.png", "train/5.png")
    source = open_source(f"folder:{root}", labels="folders")
    assert f"{root}: 3 classes from folder names: cat, dog, fox" in source.notes
    assert f"{root}: 1 class of folder valid that folder train does not have: fox" in source.notes
    assert f"{root}: images outside of the class folders, which have no label: 1" in source.notes
    np.testing.assert_array_equal(source.read(np.arange(3)).labels, [-1, 0, 1])


def test_split_words_in_classes_are_no_splits(tree):
    root = tree("train station/1.png", "test tube/2.png", "tr/3.png", "ts/4.png", "bus/5.png")
    assert open_source(f"folder:{root}", labels="folders").num_classes == 5


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        (["all/cat/1.png", "all/dog/2.png"], "train", r"has only all; if the classes are .* \(cat, dog\), give folder:.*/all$"),
        (["train/x/a/1.png", "train/x/b/1.png", "val/x/a/1.png"], "train", "set train_folder: train/x and test_folder: val/x"),
        (["train/a/1.png", "val/a/2.png", "test/3.png"], "test", "no image under .*test is in a folder of a class; .*: val$"),
        (["train/1.png", "test/2.png"], "train", "it has no folders: put the images of each class into a folder of their own"),
        (["train/a/1.png", "test/a/2.txt"], "test", "no images under .*; set test_folder to the folder with the test images"),
    ],
)  # fmt: skip
def test_class_folders_that_are_elsewhere_are_named(tree, files, split, message):
    with pytest.raises(DataError, match=message):
        open_source(f"folder:{tree(*files)}", split, labels="folders")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/images/1.jpg", "train/labels/1.txt", "val/images/2.jpg"], "images and labels, as for detection, .*: train/im"),
        (["images/train/1.jpg", "images/val/1.jpg", "labels/train/1.txt"], "has no folders; .*labels has labels of another kind"),
        (["train/1.jpg", "train/_annotations.coco.json", "valid/1.jpg"], "_annotations.coco.json has labels of another kind"),
        (["train/1.jpg", "train/_classes.csv", "test/1.jpg"], "set labels: classes_csv to read .*_classes.csv"),
    ],
)  # fmt: skip
def test_detection_data_has_no_class_folders(tree, files, message):
    with pytest.raises(DataError, match=message):
        open_source(f"folder:{tree(*files)}", labels="folders")


def test_other_files_are_counted_and_those_of_operating_systems_ignored(tree):
    root = tree(
        "cat/1.png", "cat/._1.png", "__MACOSX/cat/._1.png", "cat/Thumbs.db", "1.xml", "2.XML", "x.csv", "LICENSE"
    )
    source = open_source(f"folder:{root}", labels="folders")
    assert (source.num_items, source.class_names) == (1, ["cat"])
    assert source.notes[-1] == f"{root}: passed over 4 other files: 2 .xml, 1 without extension, 1 .csv"
    with pytest.raises(DataError, match="has one image; a train and a test split need at least two"):
        open_source(f"folder:{root}", "test", test_fraction=0.01)


def test_several_classes_of_each_image_from_a_table(tree):
    root = tree("train/1.jpg", "train/2.jpg", "train/3.jpg", "test/4.jpg")
    (root / "train/_classes.csv").write_text("filename, cat, dog\n1.jpg, 1, 1\n3.jpg, 0, 1\n")
    (root / "test/_classes.csv").write_text("filename,cat,dog\r\n4.jpg,1,0\r\n")
    train, test = (open_source(f"folder:{root}", split, labels="classes_csv") for split in ("train", "test"))
    assert train.class_names == test.class_names == ["cat", "dog"]
    assert train.read([0, 1, 2]).labels.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert (test.labels.dtype, test.labels.tolist()) == (np.uint8, [[1, 0]])
    (root / "test/_classes.csv").write_text("filename,cat,cow\n4.jpg,1,0\n")
    with pytest.raises(DataError, match=r"are cat, dog, but those of .*test are cat, cow"):
        open_source(f"folder:{root}", labels="classes_csv")
    (root / "train/_classes.csv").write_text("filename,cat\n1.jpg,yes\n")
    with pytest.raises(DataError, match=r"_classes.csv row 2: a file name and 1 numbers, 0 or 1, are needed"):
        open_source(f"folder:{root}", labels="classes_csv")
    with pytest.raises(DataError, match=r"labels: classes_csv needs .*cannot be opened"):
        open_source(f"folder:{tree('plain/1.jpg') / 'plain'}", labels="classes_csv")
