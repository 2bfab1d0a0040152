"""`masks:PATH`: pixels, masks and fields of view as they were written, splits, what is left out and what is refused."""

import gzip
import io
import itertools
import pickle
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from wildfern.ssl.data import DataError, MaskSource, open_source
from wildfern.ssl.data import masks as module
from wildfern.ssl.data.base import UnreadableImage
from wildfern.ssl.data.fingerprint import fingerprint
from wildfern.ssl.data.masks import names_in_test, read_mask

SIZE = (6, 5)  # width, height


def random_pixels(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def random_mask(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Zeros and ones, both of them."""
    mask = np.random.default_rng(1000 + seed).integers(0, 2, (size[1], size[0]), np.uint8)
    mask[0, 0], mask[0, 1] = 0, 1
    return mask


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def encoded(array: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def write_pairs(root: Path, names, size: tuple[int, int] = SIZE) -> None:
    """images/NAME.png and masks/NAME.png of random content, seeded by the number that the name ends in."""
    for name in names:
        number = int(re.search(r"\d+$", name)[0])
        save(root / f"images/{name}.png", random_pixels(number, size))
        save(root / f"masks/{name}.png", 255 * random_mask(number, size))


def everything(source):
    return source.read(np.arange(source.num_items))


def test_pixels_and_masks_are_those_of_the_files(tmp_path):
    write_pairs(tmp_path, ["3", "1", "2"])
    source = open_source(f"masks:{tmp_path}", test_fraction=0)
    images = source.read([2, 0, 1, 0])
    assert (source.num_items, source.channels, source.class_names, images.labels) == (3, 3, None, None)
    np.testing.assert_array_equal(images.pixels, [random_pixels(number) for number in (3, 1, 2, 1)])
    np.testing.assert_array_equal(images.masks, [random_mask(number) for number in (3, 1, 2, 1)])
    assert (images.masks.dtype, images.regions) == (np.uint8, None)
    assert len(source.read([])) == 0
    assert source.split_words == "pairs, 3 of 3 images, by a hash of their names (seed 0)"


def test_regions_are_read_and_are_everywhere_for_images_without_one(tmp_path):
    write_pairs(tmp_path, ["1", "2"])
    save(tmp_path / "fov/2.png", random_mask(50))
    arguments = {"images": "images/{name}.png", "masks": "masks/{name}.png", "test_fraction": 0.0}
    images = everything(open_source(f"masks:{tmp_path}", regions="fov/{name}.png", **arguments))
    np.testing.assert_array_equal(images.regions, [np.ones(SIZE[::-1]), random_mask(50)])
    np.testing.assert_array_equal(images.masks, [random_mask(1), random_mask(2)])
    assert images.regions.dtype == np.uint8
    assert everything(open_source(f"masks:{tmp_path}", **arguments)).regions is None
    with pytest.raises(DataError, match=r"no file of these images matches regions: fov/\{name\}.gif"):
        open_source(f"masks:{tmp_path}", regions="fov/{name}.gif", **arguments)


def test_drive_as_it_is_unpacked(tmp_path):
    for split, number in (("training", 21), ("training", 22), ("test", 1), ("test", 2)):
        folder = tmp_path / split
        save(folder / f"images/{number:02}_{split}.tif", random_pixels(number))
        save(folder / f"mask/{number:02}_{split}_mask.gif", 255 * random_mask(number + 100))
        save(folder / f"1st_manual/{number:02}_manual1.gif", 255 * random_mask(number))
        if split == "test":
            save(folder / f"2nd_manual/{number:02}_manual2.gif", 255 * random_mask(number + 200))
    train, test = (open_source(f"masks:{tmp_path}", split) for split in ("train", "test"))
    second = open_source(f"masks:{tmp_path}", "test", annotator=2)
    for source, numbers, offset in ((train, (21, 22), 0), (test, (1, 2), 0), (second, (1, 2), 200)):
        images = everything(source)
        np.testing.assert_array_equal(images.pixels, [random_pixels(number) for number in numbers])
        np.testing.assert_array_equal(images.masks, [random_mask(number + offset) for number in numbers])
        np.testing.assert_array_equal(images.regions, [random_mask(number + 100) for number in numbers])
    assert (train.split_words, test.split_words) == ("drive, folder training", "drive, folder test")
    assert [file.name for file in second.files()] == [
        *("test/images/01_test.tif", "test/images/02_test.tif"),
        *("test/2nd_manual/01_manual2.gif", "test/2nd_manual/02_manual2.gif"),
        *("test/mask/01_test_mask.gif", "test/mask/02_test_mask.gif"),
    ]


def test_stare_is_read_from_packed_files(tmp_path):
    numbers = range(10)
    for number in numbers:
        for name, array in (
            (f"stare-images/im{number:04}.ppm.gz", random_pixels(number)),
            (f"labels-ah/im{number:04}.ah.ppm.gz", 255 * random_mask(number)),
            (f"labels-vk/im{number:04}.vk.ppm.gz", 255 * random_mask(number + 100)),
        ):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(gzip.compress(encoded(array, "PPM")))
    both = [open_source(f"masks:{tmp_path}", split) for split in ("train", "test")]
    assert [source.num_items for source in both] == [8, 2]
    for annotator, offset in ((1, 0), (2, 100)):
        images = everything(open_source(f"masks:{tmp_path}", test_fraction=0, annotator=annotator))
        np.testing.assert_array_equal(images.pixels, [random_pixels(number) for number in numbers])
        np.testing.assert_array_equal(images.masks, [random_mask(number + offset) for number in numbers])


def test_the_last_eight_images_of_chase_db1_are_test(tmp_path):
    names = [f"{child:02}{eye}" for child in range(1, 15) for eye in "LR"]
    for number, name in enumerate(names):
        (tmp_path / f"Image_{name}.jpg").write_bytes(encoded(random_pixels(number), "JPEG"))
        save(tmp_path / f"Image_{name}_1stHO.png", random_mask(number) > 0)
        save(tmp_path / f"Image_{name}_2ndHO.png", random_mask(number + 100) > 0)
    for split, numbers in (("train", range(20)), ("test", range(20, 28))):
        source = open_source(f"masks:{tmp_path}", split)
        np.testing.assert_array_equal(everything(source).masks, [random_mask(number) for number in numbers])
        assert source.split_words == f"chase_db1, {len(numbers)} of 28 images, by their names"
    second = everything(open_source(f"masks:{tmp_path}", "test", annotator=2))
    np.testing.assert_array_equal(second.masks, [random_mask(number + 100) for number in range(20, 28)])
    for name in names[20:]:
        (tmp_path / f"Image_{name}.jpg").unlink()
    with pytest.raises(DataError, match="has no test images: 11L, 11R, 12L"):
        open_source(f"masks:{tmp_path}", "test")


def ground_truth(path: Path, segments: np.ndarray, **arguments) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"groundTruth": {"Segmentation": segments, "Boundaries": segments > 1}}, **arguments)


@pytest.mark.parametrize("packed", [False, True])
def test_cfd_has_its_segments_in_matlab_files(tmp_path, packed):
    segments = {1: random_mask(1) + 1, 2: np.ones(SIZE[::-1], np.uint8), 3: 3 * random_mask(3).astype(np.float64) + 1}
    for number, array in segments.items():
        save(tmp_path / f"image/{number:03}.jpg", random_pixels(number))
        ground_truth(tmp_path / f"groundTruth/{number:03}.mat", array, do_compression=packed)
    images = everything(open_source(f"masks:{tmp_path}", test_fraction=0))
    np.testing.assert_array_equal(images.masks, [random_mask(1), np.zeros(SIZE[::-1]), random_mask(3)])


def test_xcad_gives_its_test_images(tmp_path):
    for number in range(3):
        save(tmp_path / f"train/images/{number}.png", random_pixels(number))
        save(tmp_path / f"test/images/{number}_1.png", random_pixels(number + 10))
        save(tmp_path / f"test/masks/{number}_1.png", random_mask(number))
    images = everything(open_source(f"masks:{tmp_path}", "test"))
    np.testing.assert_array_equal(images.masks, [random_mask(number) for number in range(3)])
    with pytest.raises(
        DataError, match=r"the train images of .* have no masks.*folder:PATH reads images without masks"
    ):
        open_source(f"masks:{tmp_path}", "train")


def test_cracktree_has_masks_in_folders_of_their_own(tmp_path):
    for number in range(5):
        save(tmp_path / f"CrackTree260/{number}.png", random_pixels(number))
        save(tmp_path / f"CrackTree260_gt/gt/{number}.bmp", 255 * random_mask(number))
    images = everything(open_source(f"masks:{tmp_path}", test_fraction=0))
    np.testing.assert_array_equal(images.masks, [random_mask(number) for number in range(5)])


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 7])
def test_splits_are_disjoint_and_together_everything(tmp_path, fraction, seed):
    names = [f"x{number}" for number in range(9)]
    write_pairs(tmp_path, names)
    both = [open_source(f"masks:{tmp_path}", split, test_fraction=fraction, seed=seed) for split in ("train", "test")]
    train, test = ([Path(source.item_name(item)).stem for item in range(source.num_items)] for source in both)
    assert sorted(train + test) == names
    assert len(test) == max(1, min(8, round(9 * fraction)))
    assert set(test) == names_in_test(names, fraction, seed)
    for source, mine in zip(both, (train, test), strict=True):
        np.testing.assert_array_equal(everything(source).masks, [random_mask(int(name[1:])) for name in mine])


def test_the_share_of_test_is_a_function_of_names_and_seed():
    names = [f"{number:03}" for number in range(200)]
    chosen = names_in_test(names, 0.2, 0)
    assert len(chosen) == 40
    assert chosen == names_in_test(reversed(names), 0.2, 0)
    assert chosen <= names_in_test(names, 0.3, 0)
    assert chosen != names_in_test(names, 0.2, 1)
    assert sorted(names_in_test(["a", "b", "c", "d", "e"], 0.4, 0)) == ["c", "d"]  # the same in every release
    assert (names_in_test(names, 0.0, 0), names_in_test(names, 1.0, 0)) == (set(), set(names))
    assert [len(names_in_test(names[:count], 0.01, 0)) for count in (0, 1, 2, 5)] == [0, 0, 1, 1]
    assert [len(names_in_test(names[:count], 0.99, 0)) for count in (0, 1, 2, 5)] == [0, 1, 1, 4]


def test_all_images_are_of_one_split_at_0_and_1_and_the_other_is_refused(tmp_path):
    write_pairs(tmp_path, ["1", "2"])
    for fraction, split, other in ((0, "train", "test"), (1, "test", "train")):
        assert open_source(f"masks:{tmp_path}", split, test_fraction=fraction).num_items == 2
        with pytest.raises(
            DataError, match=rf"leaves no image for the {other} split: all 2 images under .*example 0\.2"
        ):
            open_source(f"masks:{tmp_path}", other, test_fraction=fraction)
    with pytest.raises(DataError, match=r"test_fraction must be in \[0, 1\], got 1.5"):
        open_source(f"masks:{tmp_path}", test_fraction=1.5)


COLORS = np.array([[0, 0, 0], [128, 0, 0]], np.uint8)


@pytest.mark.parametrize(
    ("array", "end"),
    [
        (random_mask(0), "png"),
        (255 * random_mask(0), "png"),
        (255 * random_mask(0), "gif"),
        (random_mask(0) > 0, "png"),
        (random_mask(0) > 0, "tif"),
        (COLORS[random_mask(0)], "png"),
        (40 + 60 * random_mask(0), "bmp"),  # 40 and 100
        (random_mask(0).astype(np.uint16), "png"),
        (65535 * random_mask(0).astype(np.uint16), "tif"),
        (random_mask(0).astype(np.float32), "tif"),
        (np.dstack([COLORS[random_mask(0)], np.full(SIZE[::-1], 255, np.uint8)]), "png"),
        (np.dstack([np.full((*SIZE[::-1], 3), 255, np.uint8), 255 * random_mask(0)]), "png"),
        (np.dstack([np.full(SIZE[::-1], 255, np.uint8), 255 * random_mask(0)]), "png"),
    ],
)
def test_values_above_half_of_the_largest_are_one(tmp_path, array, end):
    path = tmp_path / f"mask.{end}"
    if array.shape == (*SIZE[::-1], 2):
        Image.fromarray(array, "LA").save(path)
    else:
        Image.fromarray(array).save(path)
    np.testing.assert_array_equal(read_mask(str(path)), random_mask(0))


def test_edges_palettes_and_masks_of_one_value(tmp_path):
    values = np.array([[0, 1, 100, 127], [128, 129, 254, 255]], np.uint8)
    Image.fromarray(values).save(tmp_path / "edges.png")
    np.testing.assert_array_equal(read_mask(str(tmp_path / "edges.png")), [[0, 0, 0, 0], [1, 1, 1, 1]])
    for value in (0, 1, 7, 255):
        Image.fromarray(np.full((2, 3), value, np.uint8)).save(tmp_path / "one.png")
        np.testing.assert_array_equal(read_mask(str(tmp_path / "one.png")), np.full((2, 3), value > 0))
    palette = Image.fromarray(random_mask(0)).convert("P")
    palette.putpalette([0, 0, 0, 0, 128, 0])
    for arguments in ({}, {"transparency": 0}):
        palette.save(tmp_path / "palette.png", **arguments)
        np.testing.assert_array_equal(read_mask(str(tmp_path / "palette.png")), random_mask(0))
    Image.fromarray(255 * random_mask(0)).save(tmp_path / "gray.png", transparency=0)
    np.testing.assert_array_equal(read_mask(str(tmp_path / "gray.png")), random_mask(0))


def test_masks_and_regions_shrink_with_their_images_to_the_nearest_pixel(tmp_path):
    for name, size in (("1", (40, 20)), ("2", (8, 6))):
        write_pairs(tmp_path, [name], size)
        save(tmp_path / f"fov/{name}.png", random_mask(60 + int(name), size))
    arguments = {"images": "images/{name}.*", "masks": "masks/{name}.*", "regions": "fov/{name}.*", "test_fraction": 0}
    images = everything(open_source(f"masks:{tmp_path}", max_side=10, **arguments))
    assert [one.shape for one in images.pixels] == [(5, 10, 3), (6, 8, 3)]
    for found, offset in ((images.masks, 0), (images.regions, 60)):
        np.testing.assert_array_equal(found[0], random_mask(1 + offset, (40, 20))[2::4, 2::4])
        np.testing.assert_array_equal(found[1], random_mask(2 + offset, (8, 6)))
    whole = everything(open_source(f"masks:{tmp_path}", **arguments))
    np.testing.assert_array_equal(whole.masks[0], random_mask(1, (40, 20)))


def test_an_image_that_is_shown_turned_has_the_mask_of_its_turned_size(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter, clockwise
    (tmp_path / "images").mkdir()
    Image.fromarray(random_pixels(1)).save(tmp_path / "images/1.jpg", exif=turned)
    save(tmp_path / "masks/1.png", random_mask(1, SIZE[::-1]))
    images = everything(open_source(f"masks:{tmp_path}", test_fraction=0))
    assert images.pixels.shape == (1, 6, 5, 3)
    np.testing.assert_array_equal(images.masks, [random_mask(1, SIZE[::-1])])
    save(tmp_path / "masks/1.png", random_mask(1))
    with pytest.raises(DataError, match=r"1.png has 6 x 5 pixels, but its image .*1.jpg has 5 x 6"):
        open_source(f"masks:{tmp_path}", test_fraction=0)


def test_what_replaces_a_damaged_image_comes_with_its_own_mask(tmp_path):
    write_pairs(tmp_path, ["1", "2", "3", "4"])
    save(tmp_path / "fov/3.png", random_mask(50))
    damaged = tmp_path / "images/2.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    arguments = {"images": "images/{name}.*", "masks": "masks/{name}.*", "regions": "fov/{name}.*", "test_fraction": 0}
    source = open_source(f"masks:{tmp_path}", **arguments)
    for items in ([1], [0, 1, 2, 3], [1, 1, 0]):
        images = source.read(items)
        for position, item in enumerate(items):
            pixels = images.pixels[position]
            number = next(number for number in range(1, 5) if (pixels == random_pixels(number)).all())
            assert number == item + 1 or item == 1
            np.testing.assert_array_equal(images.masks[position], random_mask(number))
            expected = random_mask(50) if number == 3 else np.ones(SIZE[::-1])
            np.testing.assert_array_equal(images.regions[position], expected)
    assert list(source.skipped) == [str(damaged)]


def test_images_without_a_usable_header_are_left_out_and_move_no_other(tmp_path):
    write_pairs(tmp_path, [f"x{number}" for number in range(6)])
    before = [open_source(f"masks:{tmp_path}", split, test_fraction=0.5) for split in ("train", "test")]
    names = [[source.item_name(item) for item in range(3)] for source in before]
    Path(names[0][0]).write_text("not an image")
    train, test = (open_source(f"masks:{tmp_path}", split, test_fraction=0.5) for split in ("train", "test"))
    assert [train.item_name(item) for item in range(train.num_items)] == names[0][1:]
    assert [test.item_name(item) for item in range(test.num_items)] == names[1]
    assert train.skipped == {names[0][0]: "not an image in a known format"}
    for name in names[0]:
        Path(name).write_text("")
    with pytest.raises(DataError, match=r"no image under .* can be used; for example .*: empty file"):
        open_source(f"masks:{tmp_path}", "train", test_fraction=0.5)


def test_masks_and_regions_that_are_wrong_are_named_with_their_image(tmp_path):
    write_pairs(tmp_path, ["1", "2"])
    save(tmp_path / "fov/1.png", random_mask(1))
    arguments = {"images": "images/{name}.*", "masks": "masks/{name}.*", "regions": "fov/{name}.*", "test_fraction": 0}
    for folder, what in (("masks", "mask"), ("fov", "field of view")):
        path = tmp_path / folder / "1.png"
        content = path.read_bytes()
        save(path, random_mask(1, (5, 6)))
        with pytest.raises(
            DataError, match=rf"{folder}/1.png has 5 x 6 pixels, but its image .*images/1.png has 6 x 5"
        ):
            open_source(f"masks:{tmp_path}", **arguments)
        path.write_text("not an image")
        with pytest.raises(
            DataError, match=rf"{folder}/1.png, the {what} of .*images/1.png, cannot be read: not an image"
        ):
            open_source(f"masks:{tmp_path}", **arguments)
        path.write_bytes(content[:-30])
        source = open_source(f"masks:{tmp_path}", **arguments)
        with pytest.raises(
            DataError, match=rf"{folder}/1.png, the {what} of .*images/1.png, cannot be read: truncated"
        ):
            source.read([0])
        np.testing.assert_array_equal(source.read([1]).masks, [random_mask(2)])
        path.write_bytes(content)
    (tmp_path / "masks/2.png").unlink()
    with pytest.raises(DataError, match=r"masks/2.\* is missing: the mask of images/2.png"):
        open_source(f"masks:{tmp_path}", **arguments)
    (tmp_path / "masks/2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"masks/2.png, the mask of .*, cannot be read: cannot be opened: No such file"):
        open_source(f"masks:{tmp_path}", **arguments)


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("../{name}.png", "must be a path inside of the folder, without '..'"),
        ("masks/../../{name}.png", "must be a path inside of the folder, without '..'"),
        ("{name}/../x.png", "must be a path inside of the folder, without '..'"),
        ("/etc/{name}.png", "must be a path inside of the folder, without '..'"),
        ("masks//{name}.png", "must be a path inside of the folder, without '..'"),
        ("masks/1.png", "needs {name}, the text that an image and its mask share"),
        ("", "needs {name}, the text that an image and its mask share"),
        ("*/{name}.png", "may have {name}, and .* at its end for any extension"),
        ("masks/{name}_{split}.png", "may have {name}, and .* at its end for any extension"),
    ],
)
@pytest.mark.parametrize("key", ["images", "masks", "regions"])
def test_patterns_that_lead_elsewhere_or_mean_nothing_are_refused(tmp_path, key, pattern, fault):
    write_pairs(tmp_path / "set", ["1"])
    save(tmp_path / "1.png", random_mask(1))
    patterns = {"images": "images/{name}.png", "masks": "masks/{name}.png", key: pattern}
    with pytest.raises(
        DataError, match=re.escape(f"{key}: {pattern!r} {fault}; for example {key}: '{key}/{{name}}.png'")
    ):
        open_source(f"masks:{tmp_path / 'set'}", **patterns)


def test_other_arguments_that_are_wrong_are_refused(tmp_path):
    write_pairs(tmp_path, ["1", "2"])
    for given in ({"images": "images/{name}.*"}, {"masks": "masks/{name}.*"}, {"regions": "fov/{name}.*"}):
        with pytest.raises(DataError, match="give both images: "):
            open_source(f"masks:{tmp_path}", **given)
    with pytest.raises(DataError, match="there is no layout 'driv'; there are auto, pairs, drive"):
        open_source(f"masks:{tmp_path}", layout="driv")
    with pytest.raises(DataError, match="annotator: 2, but the images of"):
        open_source(f"masks:{tmp_path}", annotator=2)
    with pytest.raises(DataError, match="does not exist"):
        open_source(f"masks:{tmp_path}/gone")


def test_packed_and_matlab_files_are_read_within_limits(tmp_path, monkeypatch):
    picture = gzip.compress(encoded(255 * random_mask(1), "PPM"))
    file = tmp_path / "1.ppm.gz"
    file.write_bytes(picture)
    np.testing.assert_array_equal(read_mask(str(file)), random_mask(1))
    matrix = tmp_path / "1.mat"
    for content in (picture[:-12], picture[:4], b"no gzip file", b""):
        file.write_bytes(content)
        with pytest.raises(UnreadableImage, match=r"truncated or damaged|empty file"):
            read_mask(str(file))
    ground_truth(matrix, random_mask(1) + 1, do_compression=True)
    content = matrix.read_bytes()
    np.testing.assert_array_equal(read_mask(str(matrix)), random_mask(1))
    for part in (content[:-9], content[:140], content[:128] + b"\xff" * 80, content[:60], b"text", b""):
        matrix.write_bytes(part)
        with pytest.raises(UnreadableImage, match=r"truncated, damaged or without|not a MATLAB file|empty file"):
            read_mask(str(matrix))
    savemat(matrix, {"groundTruth": {"Segmentation": "text"}})
    with pytest.raises(UnreadableImage, match="no matrix of numbers"):
        read_mask(str(matrix))
    savemat(matrix, {"other": np.ones((2, 2))})
    with pytest.raises(UnreadableImage, match=r"without groundTruth\.Segmentation"):
        read_mask(str(matrix))
    monkeypatch.setattr(module, "MOST_BYTES", 10_000)
    file.write_bytes(gzip.compress(bytes(20_000)))
    bomb = zlib.compress(bytes(20_000))
    matrix.write_bytes(content[:128] + struct.pack("<II", 15, len(bomb)) + bomb)
    for one in (file, matrix):
        with pytest.raises(UnreadableImage, match="unpacks to more than 10,000 bytes"):
            read_mask(str(one))


def test_files_are_images_masks_and_regions_and_their_contents_are_told_apart(tmp_path):
    write_pairs(tmp_path, ["1", "2"])
    save(tmp_path / "fov/2.png", random_mask(50))
    arguments = {"images": "images/{name}.*", "masks": "masks/{name}.*", "regions": "fov/{name}.*", "test_fraction": 0}
    source = open_source(f"masks:{tmp_path}", **arguments)
    names = ["images/1.png", "images/2.png", "masks/1.png", "masks/2.png", "fov/2.png"]
    assert [file.name for file in source.files()] == names
    assert all((tmp_path / file.name).stat().st_size == file.size for file in source.files())
    before = fingerprint(source.files(), contents=True)
    save(tmp_path / "fov/2.png", 1 - random_mask(50))
    assert fingerprint(source.files(), contents=True).contents != before.contents


def test_notes_say_what_was_left_out(tmp_path):
    write_pairs(tmp_path, ["1", "2", "3"])
    (tmp_path / "images/3.png").unlink()
    save(tmp_path / "images/.hidden.png", random_pixels(1))
    source = open_source(f"masks:{tmp_path}", test_fraction=0)
    assert source.num_items == 2
    assert source.notes == [f"{tmp_path}: masks without an image, which are left out: 1"]


def test_copies_and_linked_folders_read_the_same(tmp_path):
    write_pairs(tmp_path / "set", ["1", "2", "3"])
    (tmp_path / "link").symlink_to(tmp_path / "set")
    source = MaskSource(str(tmp_path / "set"), "train", test_fraction=0.0)
    source.read([0])
    for other in (pickle.loads(pickle.dumps(source)), open_source(f"masks:{tmp_path / 'link'}", test_fraction=0)):
        ours, theirs = everything(source), everything(other)
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        np.testing.assert_array_equal(ours.masks, theirs.masks)


def test_items_do_not_depend_on_the_order_in_which_files_were_made(tmp_path):
    names = ["10", "9", "b1", "a2"]
    orders = list(itertools.permutations(names))[::7]
    for number, order in enumerate(orders):
        write_pairs(tmp_path / str(number), order)
    for split in ("train", "test"):
        sources = [
            open_source(f"masks:{tmp_path / str(number)}", split, test_fraction=0.5) for number in range(len(orders))
        ]
        found = [[Path(one.item_name(item)).stem for item in range(one.num_items)] for one in sources]
        assert found == [found[0]] * len(orders)
        assert found[0] == sorted(found[0])
