"""The layout of MVTec AD: classes, splits, masks, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wildfern.ssl.data.mvtec  # noqa: F401  (registers the source)
from wildfern.ssl.data import DataError, open_source
from wildfern.ssl.data.fingerprint import fingerprint
from wildfern.ssl.evaluation.labeled_chunks import labeled_chunks


def image(path: Path, color: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (color, 0, 0)).save(path)


def mask(path: Path, box: tuple[int, int, int, int], size: tuple[int, int] = (12, 10), mode: str = "L") -> None:
    """White from (left, top) to below (right, bottom), black elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = Image.new(mode, size)
    drawn.paste({"L": 255, "1": 1, "RGB": (255, 255, 255)}[mode], box)
    drawn.save(path)


@pytest.fixture
def category(tmp_path):
    """bottle: three train images; in test one of `broken`, two of `good`, two of `ajar`, with masks of several modes."""
    root = tmp_path / "sets" / "bottle"
    for number in range(3):
        image(root / f"train/good/{number:03}.png", number)
    image(root / "test/good/000.png", 10)
    image(root / "test/good/001.png", 11)
    image(root / "test/broken/000.png", 20)
    image(root / "test/ajar/000.png", 30)
    image(root / "test/ajar/001.png", 31)
    mask(root / "ground_truth/broken/000_mask.png", (0, 0, 3, 2))
    mask(root / "ground_truth/ajar/000_mask.png", (4, 5, 6, 8), mode="1")
    mask(root / "ground_truth/ajar/001_mask.png", (11, 9, 12, 10), mode="RGB")
    (root / "readme.txt").write_text("of the data set")
    return root


def boxes(masks) -> list[tuple[int, ...] | None]:
    """The box of the ones of each mask."""
    found = []
    for one in masks:
        rows, columns = np.nonzero(one)
        found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None)
    return found


def test_classes_and_masks_of_both_splits(category):
    train, test = (open_source(f"mvtec:{category}", split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ["good", "ajar", "broken"]
    images = train.read([0, 1, 2])
    assert images.labels.tolist() == [0, 0, 0]
    assert (images.masks.shape, images.masks.dtype, images.masks.any()) == ((3, 10, 12), np.uint8, False)
    images = test.read(np.arange(5))
    assert images.pixels[:, 0, 0, 0].tolist() == [30, 31, 20, 10, 11]
    assert images.labels.tolist() == [1, 1, 2, 0, 0]
    assert boxes(images.masks) == [(4, 5, 6, 8), (11, 9, 12, 10), (0, 0, 3, 2), None, None]
    assert np.unique(images.masks).tolist() == [0, 1]
    assert (train.split_words, test.split_words) == ("bottle train", "bottle test")
    assert boxes(test.read([2, 4, 0, 2]).masks) == [(0, 0, 3, 2), None, (4, 5, 6, 8), (0, 0, 3, 2)]
    assert len(test.read([])) == 0


def test_a_category_is_chosen_in_the_folder_of_all(category):
    root = category.parent
    image(root / "cable/train/good/000.png", 90)
    image(root / "cable/test/good/000.png", 91)
    (root / "license").mkdir()
    assert open_source(f"mvtec:{root}", "test", category="cable").read([0]).pixels[0, 0, 0, 0] == 91
    assert open_source(f"mvtec:{root}", "test", category="bottle").num_items == 5
    with pytest.raises(DataError, match="set category, for example bottle; there are bottle, cable"):
        open_source(f"mvtec:{root}")
    for wrong in ("botle", "../sets/bottle", str(category)):
        with pytest.raises(DataError, match=f"no category '{wrong}'; there are bottle, cable"):
            open_source(f"mvtec:{root}", category=wrong)
    with pytest.raises(DataError, match="leave category out"):
        open_source(f"mvtec:{category}", category="bottle")


def test_images_of_several_sizes_have_masks_of_their_sizes(category):
    image(category / "test/broken/000.png", 20, (40, 20))
    mask(category / "ground_truth/broken/000_mask.png", (10, 0, 30, 10), (40, 20))
    images = open_source(f"mvtec:{category}", "test").read(np.arange(5))
    assert [one.shape for one in images.masks] == [one.shape[:2] for one in images.pixels]
    assert boxes(images.masks)[2] == (10, 0, 30, 10)
    images = open_source(f"mvtec:{category}", "test", max_side=10).read(np.arange(5))
    assert [one.shape for one in images.masks] == [one.shape[:2] for one in images.pixels]
    assert images.masks[2].shape == (5, 10)
    assert boxes(images.masks)[2] == (2, 0, 7, 2)


def test_the_files_of_a_split_are_its_images_and_its_masks(category):
    train, test = (open_source(f"mvtec:{category}", split) for split in ("train", "test"))
    assert [file.name for file in train.files()] == ["good/000.png", "good/001.png", "good/002.png"]
    names = ["ajar/000.png", "ajar/001.png", "broken/000.png", "good/000.png", "good/001.png"]
    masks = [f"ground_truth/{name.replace('.', '_mask.')}" for name in names[:3]]
    assert [file.name for file in test.files()] == names + masks
    assert all(Path(file.path).stat().st_size == file.size for file in test.files())
    before = fingerprint(test.files(), contents=True)
    mask(category / "ground_truth/broken/000_mask.png", (5, 5, 6, 6))
    assert fingerprint(open_source(f"mvtec:{category}", "test").files(), contents=True).contents != before.contents


def test_what_replaces_an_unreadable_image_comes_with_its_own_mask(category):
    broken = category / "test/broken/000.png"
    broken.write_bytes(broken.read_bytes()[:-30])
    source = open_source(f"mvtec:{category}", "test")
    for items in ([2], np.arange(5), [2, 2, 0]):
        images = source.read(items)
        by_color = {30: (4, 5, 6, 8), 31: (11, 9, 12, 10), 10: None, 11: None}
        assert boxes(images.masks) == [by_color[int(one[0, 0, 0])] for one in images.pixels]
        assert [label == 0 for label in images.labels] == [box is None for box in boxes(images.masks)]
    assert list(source.skipped) == [str(broken)]


def test_unusable_headers_are_left_out_with_their_reason(category):
    (category / "test/broken/000.png").write_text("not an image")
    image(category / "test/loose.png", 1)
    source = open_source(f"mvtec:{category}", "test")
    assert source.num_items == 4
    assert source.class_names == ["good", "ajar", "broken"]
    assert {Path(name).parent.name for name in source.skipped} == {"broken"}
    assert source.notes == [f"{category}/test: images outside of the folders of classes, which are left out: 1"]
    (category / "test/good/000.png").write_text("")
    for name in ("train/good/000.png", "train/good/001.png", "train/good/002.png"):
        (category / name).write_text("")
    with pytest.raises(DataError, match=r"no image under .*train can be used; for example .*000.png: empty file"):
        open_source(f"mvtec:{category}")


def test_masks_that_are_missing_or_wrong_are_named(category):
    path = category / "ground_truth/broken/000_mask.png"
    mask(path, (0, 0, 3, 2), (10, 12))
    with pytest.raises(DataError, match=r"broken/000_mask.png has 10 x 12 pixels, but its image .* has 12 x 10"):
        open_source(f"mvtec:{category}", "test")
    path.write_text("not an image")
    with pytest.raises(DataError, match=r"broken/000_mask.png, the mask of .*, cannot be read: not an image"):
        open_source(f"mvtec:{category}", "test")
    path.unlink()
    with pytest.raises(DataError, match=r"broken/000_mask.png is missing: the mask of .*test/broken/000.png"):
        open_source(f"mvtec:{category}", "test")
    assert open_source(f"mvtec:{category}", "train").num_items == 3
    mask(path, (0, 0, 3, 2))
    path.write_bytes(path.read_bytes()[:-20])
    source = open_source(f"mvtec:{category}", "test")
    with pytest.raises(DataError, match=r"broken/000_mask.png, the mask of .*, cannot be read: truncated"):
        source.read([2])


def test_other_layouts_are_refused(tmp_path):
    with pytest.raises(DataError, match="not in the layout of MVTec AD"):
        open_source(f"mvtec:{tmp_path}")
    with pytest.raises(DataError, match="does not exist"):
        open_source(f"mvtec:{tmp_path}/gone")
    image(tmp_path / "train/cat/000.png", 0)
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="no folder train/good or test/good"):
        open_source(f"mvtec:{tmp_path}")


def test_copies_read_the_same_and_evaluators_get_the_masks(category):
    source = open_source(f"mvtec:{category}", "test")
    source.read([0])
    copy = pickle.loads(pickle.dumps(source))
    ours, theirs = source.read(np.arange(5)), copy.read(np.arange(5))
    np.testing.assert_array_equal(ours.masks, theirs.masks)
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    (chunk,) = labeled_chunks(source, "bottle")
    np.testing.assert_array_equal(chunk.masks, ours.masks)
    assert chunk.labels.tolist() == [1, 1, 2, 0, 0]
