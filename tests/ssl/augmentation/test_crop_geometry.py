"""Masks and geometry of views: against plain loops, on every path that makes views."""

import numpy as np
import pytest
import torch
from PIL import Image

from wildfern.ssl.augmentation import Views, multicrop, simclr
from wildfern.ssl.augmentation.normalization import MEAN, STD

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
N = 5
RAGGED = [(40, 56), (57, 31), (9, 23), (33, 33), (5, 1)]
PLAIN = dict(jitter=0, gray=0)


def two_groups(**settings) -> Views:
    return multicrop(size=24, local_size=13, local_count=3, **settings)


def images_and_masks(ragged: bool, seed=0):
    """Noise, so that a pixel from a wrong place is detected."""
    rng = np.random.default_rng(seed)
    shapes = RAGGED if ragged else [(37, 50)] * N
    images = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    masks = [rng.integers(0, 256, shape, np.uint8) for shape in shapes]
    return (images, masks) if ragged else (np.stack(images), np.stack(masks))


def cropped(mask, box, flip, size):
    """One mask by a loop over the pixels of its view, in exact fractions."""
    top, left, height, width = map(int, box)
    out = np.empty((size, size), np.uint8)
    for i in range(size):
        for j in range(size):
            at = size - 1 - j if flip else j
            out[i, j] = mask[top + (2 * i + 1) * height // (2 * size), left + (2 * at + 1) * width // (2 * size)]
    return out


def boxes_of(table, pixels):
    return table.boxes(*(np.array([image.shape[side] for image in pixels]) for side in (0, 1)))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_a_gpu)])
@pytest.mark.parametrize("form", ["arrays", "tensors", "tensor and array", "ragged", "lists of one size"])
def test_masks_match_a_loop_over_the_pixels_of_each_view(form, device):
    views = two_groups().to(device)
    pixels, masks = images_and_masks(form == "ragged")
    given = {
        "tensors": lambda: (torch.from_numpy(pixels).to(device), torch.from_numpy(masks).to(device)),
        "tensor and array": lambda: (torch.from_numpy(pixels).to(device), masks),
        "lists of one size": lambda: (list(pixels), list(masks)),
    }.get(form, lambda: (pixels, masks))()
    batch = views.prepare(given[0], 3, 2, np.arange(N), masks=given[1])
    made = views.masks(batch)
    for mask, image, table, (count, size) in zip(made, views(batch), batch.tables, views.shape, strict=True):
        assert (tuple(mask.shape), mask.dtype, mask.device) == ((count, N, size, size), torch.uint8, image.device)
        boxes = boxes_of(table, pixels)
        for v in range(count):
            for i in range(N):
                expected = cropped(masks[i], boxes[v, i], table.flip[v, i], size)
                np.testing.assert_array_equal(mask[v, i].cpu(), expected)


def test_the_torch_path_crops_masks_as_the_host_does():
    pixels, masks = images_and_masks(ragged=False)
    here, there = two_groups(), two_groups()
    batch = here.prepare(pixels, 0, 0, np.arange(N), masks=masks)
    packed = there._packed(batch.tables, batch.boxes, batch.geometry)
    on_device = there.masks(type(batch)(**{**vars(batch), "packed": packed}))
    for one, other in zip(here.masks(batch), on_device, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("ragged", [False, True])
def test_masks_follow_the_image_away_from_edges(ragged):
    """Images of large constant squares, each the value of its mask: a view is its mask wherever no edge is near."""
    images, masks = [], []
    for height, width in [(96, 120), (150, 97)] if ragged else [(96, 120)] * 2:
        y, x = np.mgrid[:height, :width]
        masks.append(((y // 24 * 7 + x // 24) % 5 * 60).astype(np.uint8))
        images.append(np.repeat(masks[-1][..., None], 3, axis=2))
    if not ragged:
        images, masks = np.stack(images), np.stack(masks)
    views = multicrop(size=64, local_size=32, local_count=2, blur=0.0, local_blur=0.0, solarize=0.0, **PLAIN)
    compared = 0
    for step in range(4):
        batch = views.prepare(images, 0, step, np.arange(2), masks=masks)
        for image, mask in zip(views(batch), views.masks(batch), strict=True):
            gray = 255 * (image[:, :, 0] * STD[0] + MEAN[0])
            own = mask.float()
            spread = torch.nn.functional.max_pool2d
            constant = spread(own, 7, 1) == -spread(
                -own, 7, 1
            )  # not along the border, where a mask may skip a last row
            assert (gray - own)[..., 3:-3, 3:-3][constant].abs().max() < 1
            compared += int(constant.sum())
    assert compared > 10_000


def test_colors_blur_and_erasing_leave_masks_as_they_are():
    pixels, masks = images_and_masks(ragged=False)
    plain, changed = simclr(size=24, **PLAIN, blur=0), simclr(size=24, solarize=1.0, extra=[ERASING])
    made = [views.masks(views.prepare(pixels, 0, 0, np.arange(N), masks=masks))[0] for views in (plain, changed)]
    assert torch.equal(*made)


ERASING = {"operation": "RandomErasing", "p": 1.0}
ROTATION = {"operation": "RandomRotation", "degrees": 20.0}


def test_geometric_operations_are_named_and_refuse_masks():
    pixels, masks = images_and_masks(ragged=False)
    views = simclr(size=24, extra=[ERASING, ROTATION, {"operation": "RandomElasticTransform"}])
    assert views.geometric_operations == ["RandomRotation", "RandomElasticTransform"]
    assert simclr(size=24, extra=[ERASING]).geometric_operations == []
    with pytest.raises(ValueError, match="masks cannot follow RandomRotation, RandomElasticTransform"):
        views.prepare(pixels, 0, 0, np.arange(N), masks=masks)
    views.prepare(pixels, 0, 0, np.arange(N))


def test_masks_of_pairs_are_refused():
    pixels, masks = images_and_masks(ragged=False)
    with pytest.raises(ValueError, match="masks together with paired images are not supported"):
        simclr(size=24).prepare(pixels, 0, 0, np.arange(N), pixels, masks=masks)


def test_masks_that_do_not_fit_their_images_are_refused():
    pixels, masks = images_and_masks(ragged=False)
    for wrong, message in [
        (masks[:, 1:], r"masks must be \[5, 37, 50\] like their images, not \[5, 36, 50\]"),
        (masks[:3], r"must be \[5, 37, 50\]"),
        (masks.astype(np.int64), "masks must be uint8, not int64"),
        (torch.from_numpy(masks).float(), "masks must be uint8, not float32"),
        (list(masks[:4]), "4 masks for 5 images"),
        ([*masks[:4], masks[4].T], r"mask 4 must be \[37, 50\] like its image, not \[50, 37\]"),
    ]:
        for images in (pixels, list(pixels)) if isinstance(wrong, list) else (pixels,):
            with pytest.raises(ValueError, match=message):
                simclr(size=24).prepare(images, 0, 0, np.arange(N), masks=wrong)


def test_without_masks_there_are_none_and_an_empty_batch_has_empty_ones():
    views = two_groups()
    assert views.masks(views.prepare(images_and_masks(False)[0], 0, 0, np.arange(N))) is None
    for pixels, masks in [([], []), (np.zeros((0, 20, 30, 3), np.uint8), np.zeros((0, 20, 30), np.uint8))]:
        batch = views.prepare(pixels, 0, 0, np.arange(0), masks=masks)
        assert [tuple(m.shape) for m in views.masks(batch)] == [(2, 0, 24, 24), (3, 0, 13, 13)]
        assert [tuple(g.shape) for g in views.geometry(batch)] == [(2, 0, 5), (3, 0, 5)]


@pytest.mark.parametrize("device", ["cpu", "meta", pytest.param("cuda", marks=on_a_gpu)])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_geometry_is_the_box_in_pixels_over_the_size_of_the_image_shown(ragged, paired, device):
    pixels, _ = images_and_masks(ragged)
    seconds = (pixels[::-1] if ragged else pixels) if paired else None
    views = two_groups().to(device)
    batch = views.prepare(pixels, 1, 4, np.arange(N), seconds)
    made, number = views.geometry(batch), 0
    for geometry, table, (count, _) in zip(made, batch.tables, views.shape, strict=True):
        assert (tuple(geometry.shape), geometry.dtype) == ((count, N, 5), torch.float32)
        assert geometry.device.type == device
        for v in range(count):
            shown = seconds if paired and number % 2 else pixels
            boxes = boxes_of(table, shown)
            for i in range(N):
                height, width = shown[i].shape[:2]
                top, left, h, w = map(int, boxes[v, i])
                exact = [left / width, top / height, (left + w) / width, (top + h) / height, float(table.flip[v, i])]
                if device != "meta":
                    np.testing.assert_array_equal(geometry[v, i].cpu(), np.float32(exact))
            number += 1


@pytest.mark.parametrize("ragged", [False, True])
def test_geometry_maps_a_pixel_of_one_view_to_the_same_place_in_another(ragged):
    """In a smooth image, both views show the same value at the two places; with one flip missed or a box wrong they do not."""
    shapes = [(90, 120), (130, 100), (101, 101)] if ragged else [(96, 120)] * 3
    rng = np.random.default_rng(0)
    images = [
        np.array(
            Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize(shape[::-1], Image.Resampling.BICUBIC)
        )
        for shape in shapes
    ]
    views = simclr(size=48, crop_scale=(0.3, 1.0), blur=0, **PLAIN)
    differences, misplaced = [], []
    for step in range(6):
        batch = views.prepare(images if ragged else np.stack(images), 0, step, np.arange(3))
        shown, geometry = views(batch)[0], views.geometry(batch)[0]
        for i in range(3):
            for pixel in rng.uniform(4, 44, (40, 2)):
                place = source_of(pixel, geometry[0, i], 48)
                other = pixel_of(place, geometry[1, i], 48)
                if other.min() > 3 and other.max() < 45:
                    value = sampled(shown[0, i], pixel)
                    differences.append((value - sampled(shown[1, i], other)).abs().max())
                    misplaced.append((value - sampled(shown[1, i], pixel)).abs().max())
    assert len(differences) > 200
    assert torch.stack(differences).max() < 0.15 < torch.stack(misplaced).mean()


def source_of(pixel, geometry, size):
    """(x, y) of a view, pixel centers at ½, as shares of its source image."""
    left, top, right, bottom, flip = geometry.tolist()
    x, y = pixel / size
    x = 1 - x if flip else x
    return np.array([left + x * (right - left), top + y * (bottom - top)])


def pixel_of(place, geometry, size):
    left, top, right, bottom, flip = geometry.tolist()
    x, y = (place[0] - left) / (right - left), (place[1] - top) / (bottom - top)
    return np.array([1 - x if flip else x, y]) * size


def sampled(view, pixel):
    """A view float[3, S, S] at (x, y), bilinear."""
    at = torch.tensor(pixel / view.shape[-1] * 2 - 1, dtype=torch.float32).view(1, 1, 1, 2)
    return torch.nn.functional.grid_sample(view[None], at, align_corners=False).flatten()
