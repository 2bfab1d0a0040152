"""Images with masks are read whole, in order, and the same ones in each pass."""

import numpy as np
import pytest
from masked_squares import Squares
from PIL import Image

from wildfern.ssl.data import open_source
from wildfern.ssl.data.base import NoImages
from wildfern.ssl.evaluation.masked_images import masked_images
from wildfern.ssl.tracking import Progress


def test_images_come_in_order_with_their_mask_and_field_of_view():
    source = Squares(range(3), region=True)
    found = list(masked_images(source, "squares"))
    assert [image.item for image in found] == [0, 1, 2]
    for image, expected in zip(found, source.images, strict=True):
        np.testing.assert_array_equal(image.pixels, expected.pixels)
        np.testing.assert_array_equal(image.mask, expected.mask)
        np.testing.assert_array_equal(image.region, expected.region)
        assert (image.mask.dtype, image.region.dtype) == (bool, bool)
    assert next(masked_images(Squares([0]), "squares")).region is None


def test_an_image_is_counted_when_the_next_one_is_asked_for():
    told = []
    progress = Progress(told.append, every=0.0)
    progress.part("dice")
    told.clear()
    for _ in masked_images(Squares(range(2)), "squares", progress, "reading test"):
        told.append("given")
    lines = [f"dice: reading test, {done}/2 images" for done in range(3)]
    assert told == [lines[0], "given", lines[1], "given", lines[2]]


def test_a_split_without_images_says_why():
    with pytest.raises(ValueError, match=r"squares \(train\): all are test"):
        next(masked_images(NoImages(3, "all are test"), "squares (train)"))


@pytest.fixture
def damaged(tmp_path):
    """Five images with masks, of which the first and the fourth have a header and no data."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for item in range(5):
        pixels = np.full((12, 12, 3), 40 * item, np.uint8)
        file = tmp_path / "images" / f"{item}.png"
        Image.fromarray(pixels).save(file)
        Image.fromarray((np.arange(144).reshape(12, 12) % (item + 2) == 0).astype(np.uint8)).save(
            tmp_path / "masks" / f"{item}.png"
        )
        if item in (0, 3):
            file.write_bytes(file.read_bytes()[:45])
    return open_source(f"masks:{tmp_path}", "test", test_fraction=1)


def test_unreadable_images_are_left_out_the_same_in_each_pass(damaged):
    passes = [list(masked_images(damaged, "damaged")) for _ in range(3)]
    assert damaged.num_items == 5
    for images in passes:
        assert [image.item for image in images] == [1, 2, 4]
        assert [int(image.pixels[0, 0, 0]) for image in images] == [40, 80, 160]
        for image in images:
            np.testing.assert_array_equal(image.mask, np.arange(144).reshape(12, 12) % (image.item + 2) == 0)
    assert len(damaged.skipped) == 2


def test_sources_without_an_end_or_without_masks_are_refused():
    source = Squares(range(2))
    source.num_items = None
    with pytest.raises(ValueError, match="squares: an endless stream cannot be evaluated on"):
        next(masked_images(source, "squares"))
    with pytest.raises(ValueError, match="digits has no masks, which segmentation is compared with: use masks:PATH"):
        next(masked_images(open_source("digits", "test"), "digits"))
