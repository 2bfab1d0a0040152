"""Square crops of a side in pixels of the image: boxes against a plain loop, and crops that are not resized."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from wildfern.launch.components import read_recipe
from wildfern.recipes import RecipeErrors
from wildfern.ssl.augmentation import MEAN, STD, simclr
from wildfern.ssl.augmentation.table import CROP_ATTEMPTS, INTERPOLATIONS, draw_table

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
PLAIN = dict(jitter=0.0, gray=0.0, blur=0.0)
SHAPES = [(40, 56), (57, 31), (24, 90), (24, 24), (25, 24)]


def noise(shapes, seed=0):
    """Images uint8[H, W, 3] and masks uint8[H, W] of noise, so that a pixel from a wrong place is detected."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes], [
        rng.integers(0, 256, shape, np.uint8) for shape in shapes
    ]


def box_by_hand(draws, low, high, height, width):
    """The box from the four uniforms of the first attempt: side, (unused), top, left."""
    side = min(round(low + (high - low) * float(draws[0])), height, width)
    return [math.floor(draws[2] * (height - side + 1)), math.floor(draws[3] * (width - side + 1)), side, side]


@pytest.mark.parametrize("bounds", [(4, 4), (12, 40), (24.5, 300), (64, 64), (1000, 1e30)])
def test_boxes_match_a_loop(bounds):
    rng = np.random.default_rng(1)
    heights, widths = rng.integers(1, 120, (2, 200))
    table = simclr(size=16, count=3, crop_pixels=bounds).draw(2, 5, np.arange(200))[0]
    boxes = table.boxes(heights, widths)
    for v in range(3):
        for i in range(200):
            draws = table.crop[v, i].reshape(CROP_ATTEMPTS, 4)[0]
            assert boxes[v, i].tolist() == box_by_hand(draws, *bounds, int(heights[i]), int(widths[i]))


def test_sides_and_places_are_uniform():
    n, height, width = 6000, 80, 120
    table = simclr(size=16, count=1, crop_pixels=(20, 60)).draw(3, 0, np.arange(n))[0]
    top, left, side, _ = table.boxes(np.full(n, height), np.full(n, width))[0].T
    between = np.bincount(side, minlength=61)[21:60]  # 20 and 60 are rounded from half an interval
    assert stats.chisquare(between).pvalue > 1e-3
    for start, most in ((top, height - side), (left, width - side)):
        assert stats.kstest((start + 0.5) / (most + 1), "uniform").pvalue > 1e-3
        assert (start == 0).any()
        assert (start == most).any()


def test_a_smaller_image_gives_its_largest_square_anywhere_along_its_longer_side():
    n = 400
    table = simclr(size=16, count=1, crop_pixels=(64, 96)).draw(3, 0, np.arange(n))[0]
    boxes = table.boxes(np.full(n, 30), np.full(n, 34))[0]
    assert (boxes[:, [0, 2, 3]] == [0, 30, 30]).all()
    assert set(boxes[:, 1]) == set(range(5))


def test_views_of_one_group_may_crop_in_either_way():
    by_area = simclr(size=16, crop_scale=(0.9, 1.0)).groups[0][0]
    mixed = [by_area, replace(by_area, crop_pixels=(8, 20)), by_area, replace(by_area, crop_pixels=(30, 30))]
    heights, widths = np.array([9, 40, 33]), np.array([230, 31, 33])  # the first fits no crop of so much area
    boxes = draw_table(mixed, 1, 2, np.arange(3), 0).boxes(heights, widths)
    for v, settings in enumerate(mixed):
        np.testing.assert_array_equal(
            boxes[v], draw_table([settings] * 4, 1, 2, np.arange(3), 0).boxes(heights, widths)[v]
        )


def test_area_and_ratio_are_ignored():
    one, other = (
        simclr(size=16, crop_pixels=(8, 20), crop_scale=scale, crop_ratio=ratio).draw(0, 0, np.arange(50))[0]
        for scale, ratio in (((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 0.5), (2.0, 2.0)))
    )
    sides = np.full(50, 60), np.full(50, 47)
    np.testing.assert_array_equal(one.boxes(*sides), other.boxes(*sides))


def cut(pixels, table, boxes, v, i):
    """The box of image or mask i in view v, flipped as the view is."""
    top, left, height, width = boxes[v, i].tolist()
    crop = pixels[i][top : top + height, left : left + width]
    return crop[:, ::-1] if table.flip[v, i] else crop


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("path", ["_on_host", "_on_device", pytest.param("cuda", marks=on_a_gpu)])
@pytest.mark.parametrize("form", ["array", "ragged"])
def test_crops_of_the_size_of_the_view_are_the_pixels_of_the_image(form, path, interpolation):
    """Also of masks, and of images whose shorter side is just that size."""
    images, masks = noise(SHAPES if form == "ragged" else [(37, 50)] * 5)
    given = (images, masks) if form == "ragged" else (np.stack(images), np.stack(masks))
    views = simclr(size=24, count=4, crop_pixels=(24, 24), interpolation=interpolation, **PLAIN)
    views = views.to("cuda") if path == "cuda" else views
    batch = views.prepare(given[0], 0, 0, np.arange(5), masks=given[1])
    (table,), (boxes,) = batch.tables, batch.boxes
    assert (boxes[..., 2:] == 24).all()
    made = (views(batch) if path == "cuda" else getattr(views, path)(batch))[0].cpu()
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (MEAN, STD))
    shown_masks = views.masks(batch)[0].cpu()
    for v in range(4):
        for i in range(5):
            pixels = cut(images, table, boxes, v, i)
            exact = (pixels.transpose(2, 0, 1) / np.float32(255) - mean) / std
            np.testing.assert_allclose(made[v, i].numpy(), exact, rtol=0, atol=2e-6)  # a byte's step is 0.017
            np.testing.assert_array_equal(shown_masks[v, i], cut(masks, table, boxes, v, i))
            if form == "ragged":
                np.testing.assert_array_equal(batch.pixels[0][v, i], pixels)
    assert 0 < table.flip.sum() < table.flip.size


def test_two_ranks_crop_as_one_process():
    images, masks = noise(SHAPES)
    views = simclr(size=16, crop_pixels=(10, 40), **PLAIN)

    def crops_of(own: slice) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        batch = views.prepare(images[own], 3, 5, np.arange(5)[own], batch_size=5, masks=masks[own])
        return batch.pixels[0], views.masks(batch)[0], views.geometry(batch)[0]

    for whole, *parts in zip(crops_of(slice(5)), crops_of(slice(2)), crops_of(slice(2, 5)), strict=True):
        np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


def test_odd_views_of_pairs_crop_the_second_image_by_its_own_size():
    firsts, seconds = noise(SHAPES)[0], noise([(90, 30)] * 5, seed=1)[0]
    views = simclr(size=16, crop_pixels=(50, 50), **PLAIN)
    (boxes,) = views.prepare(firsts, 0, 0, np.arange(5), seconds).boxes
    assert boxes[0, :, 2].tolist() == [40, 31, 24, 24, 24]
    assert (boxes[1, :, 2] == 30).all()


def test_images_of_other_channels_keep_the_settings():
    images = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 5), np.uint8)
    views = simclr(size=12, crop_pixels=(12, 12), mean=(0.0,) * 5, std=(1.0,) * 5, flip=0.0, **PLAIN)
    batch = views.prepare(images, 0, 0, np.arange(2))
    shown = views(batch)[0].mul(255).round().to(torch.uint8)
    for v in range(2):
        for i in range(2):
            np.testing.assert_array_equal(
                shown[v, i].permute(1, 2, 0), cut(images, batch.tables[0], batch.boxes[0], v, i)
            )


@pytest.mark.parametrize(
    ("given", "key", "message"),
    [
        ("[3, 256]", "views.crop_pixels.0", "must be greater than or equal to 4"),
        ("[300, 200]", "views.crop_pixels", "must be [low, high], got [300.0, 200.0]"),
        ("[256]", "views.crop_pixels", "has too few items"),
        ("256", "views.crop_pixels", "must be a list"),
        ("[8, .inf]", "views.crop_pixels.1", "must be a number"),
    ],
)
def test_a_recipe_with_impossible_sides_is_refused(given, key, message):
    with pytest.raises(RecipeErrors) as caught:
        read_recipe("quickstart", [f"views.crop_pixels={given}"])
    (problem,) = caught.value.problems
    assert problem.key == key
    assert message in problem.message


def test_a_recipe_may_state_sides_or_none():
    for given, expected in (("[256, 256]", (256.0, 256.0)), ("[192, 384.5]", (192.0, 384.5)), ("null", None)):
        arguments = read_recipe("quickstart", [f"views.crop_pixels={given}"]).views.arguments
        assert arguments["crop_pixels"] == expected
