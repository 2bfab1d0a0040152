"""Crops against Pillow's own crop-then-resize and against the mean of the pixels under a box."""

import numpy as np
import pytest
from PIL import Image

from wildfern.ssl.data import crop_resize, crops_resize, square


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_whole_image_at_its_own_size_is_unchanged():
    image = noise(9, 9)
    np.testing.assert_array_equal(crop_resize(image, (0, 0, 9, 9), 9), image)


def test_integer_box_without_scaling_is_a_slice():
    image = noise(20, 30)
    np.testing.assert_array_equal(crop_resize(image, (4, 2, 12, 10), 8), image[2:10, 4:12])


def test_shrinking_averages_the_box():
    image = np.repeat(np.repeat(noise(4, 4), 16, 0), 16, 1)  # constant tiles: the mean of a tile is its color
    small = crop_resize(image, (0, 0, 64, 64), 1)[0, 0].astype(float)
    weights = 1 - np.abs(np.arange(0.5, 64) - 32) / 64  # the triangle of one output pixel, cut off at the box
    expected = np.einsum("i,j,ijc->c", weights, weights, image) / weights.sum() ** 2
    np.testing.assert_allclose(small, expected, atol=1.0)


def test_several_boxes_equal_single_ones():
    image = noise(40, 25)
    boxes = [(0, 0, 25, 40), (3.25, 7.5, 20.75, 30.0), (10, 10, 11, 11)]
    together = crops_resize(image, boxes, 16)
    for row, box in enumerate(boxes):
        np.testing.assert_array_equal(together[row], crop_resize(image, box, 16))


def test_a_box_outside_the_image_is_refused():
    with pytest.raises(ValueError, match=r"[Bb]ox"):
        crop_resize(noise(8, 8), (0, 0, 9, 8), 4)


def test_square_is_resize_then_center_crop():
    image = Image.fromarray(noise(512, 768)).resize((96, 64))
    pixels = np.asarray(
        image.resize((960, 640), Image.Resampling.BICUBIC)
    )  # smooth, so that rounding of places hardly shows
    reference = np.asarray(
        Image.fromarray(pixels).resize((384, 256), Image.Resampling.BILINEAR).crop((80, 16, 304, 240))
    )
    ours = square(pixels, 224, fraction=0.875)
    assert np.abs(ours.astype(int) - reference).mean() < 1.0
    np.testing.assert_array_equal(square(noise(8, 8), 8), noise(8, 8))
