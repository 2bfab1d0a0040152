"""Crops of images of different sizes: against those of the torch path and Pillow's crop-then-resize, for the same boxes."""

import numpy as np
import pytest
import torch
from PIL import Image

from wildfern.ssl.augmentation import multicrop, simclr
from wildfern.ssl.augmentation.crop import crop_views
from wildfern.ssl.augmentation.host_crops import crop_images
from wildfern.ssl.augmentation.table import INTERPOLATIONS

SHAPES = ((40, 56), (57, 31), (9, 230), (33, 33), (1, 1), (5, 1), (300, 17))


def photographs(seed=0):
    """uint8[H, W, 3] of each shape: the left half smooth, the right half noise."""
    rng = np.random.default_rng(seed)
    images = []
    for height, width in SHAPES:
        smooth = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8)).resize((width, height))
        image = np.array(smooth)
        image[:, width // 2 :] = rng.integers(0, 256, image[:, width // 2 :].shape, np.uint8)
        images.append(image)
    return images


def boxes_of(table, images):
    heights, widths = (np.array([p.shape[side] for p in images]) for side in (0, 1))
    return table.boxes(heights, widths)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [4, 16, 33, 64, 224])
def test_crops_are_those_of_the_torch_path_rounded_to_bytes(size, interpolation):
    images = photographs()
    for step in range(4):
        table = simclr(size=size, count=3, interpolation=interpolation).draw(1, step, np.arange(len(images)))[0]
        crops, boxes = crop_images(images, table, size), boxes_of(table, images)
        for i, image in enumerate(images):
            place = torch.from_numpy(boxes[:, i : i + 1]), torch.from_numpy(table.flip[:, i : i + 1])
            whole = torch.from_numpy(image)[None].float() / 255
            exact = 255 * crop_views(whole, *place, size, interpolation).permute(0, 2, 3, 1).numpy()
            assert np.abs(crops[:, i] - exact).max() <= 0.5 + 2e-3


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [16, 48])
def test_crops_are_pillows_within_its_rounding_between_passes(size, interpolation):
    images = photographs()
    if interpolation == "bicubic":  # far from 0 and 255, for Pillow clips between its passes too
        images = [64 + image // 2 for image in images]
    table = simclr(size=size, count=8, interpolation=interpolation).draw(0, 0, np.arange(len(images)))[0]
    crops, boxes = crop_images(images, table, size), boxes_of(table, images)
    for i, image in enumerate(images):
        for v in range(8):
            top, left, height, width = boxes[v, i].tolist()
            cropped = Image.fromarray(image).crop((left, top, left + width, top + height))
            expected = np.asarray(cropped.resize((size, size), Image.Resampling[interpolation.upper()])).astype(int)
            expected = expected[:, ::-1] if table.flip[v, i] else expected
            assert np.abs(crops[v, i] - expected).max() <= 1


def test_odd_views_show_the_paired_images():
    firsts, seconds = photographs(0), photographs(1)[::-1]
    for first in (0, 1, 2):
        table = multicrop(size=24, local_count=0).draw(0, 0, np.arange(len(SHAPES)))[0]
        pairs = crop_images(firsts, table, 24, seconds, first)
        for v in range(2):
            shown = seconds if (first + v) % 2 else firsts
            np.testing.assert_array_equal(pairs[v], crop_images(shown, table, 24)[v])


def test_a_crop_depends_only_on_its_image_and_not_on_the_memory_layout():
    images = photographs()
    table = simclr(size=20).draw(0, 0, np.arange(len(SHAPES)))[0]
    whole = crop_images(images, table, 20)
    for i, image in enumerate(images):
        frozen = np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)
        frozen.flags.writeable = False
        alone = simclr(size=20).draw(0, 0, np.arange(i, i + 1))[0]
        np.testing.assert_array_equal(crop_images([frozen], alone, 20)[:, 0], whole[:, i])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (photographs()[1:], "7 images are needed, got 6"),
        ([p / 255 for p in photographs()], r"uint8\[H, W, 3\], got float64\[40, 56, 3\]"),
        ([p[..., 0] for p in photographs()], r"got uint8\[40, 56\]"),
        ([p[:0] for p in photographs()], r"got uint8\[0, 56, 3\]"),
    ],
)
def test_invalid_images_are_refused(images, message):
    table = simclr(size=16).draw(0, 0, np.arange(len(SHAPES)))[0]
    with pytest.raises(ValueError, match=message):
        crop_images(images, table, 16)


def test_no_images_give_no_crops():
    table = simclr(size=16).draw(0, 0, np.arange(0))[0]
    assert crop_images([], table, 16).shape == (2, 0, 16, 16, 3)
