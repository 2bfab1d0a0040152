"""Views against torchvision's, image by image and view by view, with the same drawn numbers, in one precision (float32).

Both makers of views: the processor's kernel and torch. Crops smaller than the view and larger, images that are not square, odd
sizes; each operation alone and all together.
"""

import dataclasses

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from wildfern.ssl.augmentation import MEAN, STD, VIEWS, simclr
from wildfern.ssl.augmentation.blur import kernel_size
from wildfern.ssl.augmentation.table import INTERPOLATIONS

TOLERANCE = 2e-5  # of values in [0, 1]; a byte's step is 4e-3
CHAIN = 1e-4  # contrast of up to 1.8, brightness and saturation multiply what went before
SHAPES = ((40, 56), (57, 31), (33, 33), (21, 150))
SIZES = (12, 33, 96)  # most crops are larger, some larger and some smaller, all smaller
ALONE = dict(flip=0, jitter=0, gray=0, blur=0, solarize=0)
FUNCTIONS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
PATHS = ("_on_host", "_on_device")


def photographs(height, width, n=8):
    """uint8[n, height, width, 3]: colors that change smoothly, and noise on some of them."""
    coarse = torch.rand(n, 3, 5, 7, generator=torch.Generator().manual_seed(height * width))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1).mul(255).byte()
    images = smooth.permute(0, 2, 3, 1).contiguous().numpy()
    images[::2, : height // 2] = np.random.default_rng(0).integers(0, 256, images[::2, : height // 2].shape, np.uint8)
    return images


def torchvisions(image, settings, table, view, i):
    """View `view` of image i (uint8[H, W, 3]) as torchvision makes it: float32[3, S, S]."""
    height, width = image.shape[:2]
    n = table.flip.shape[1]
    box = table.boxes(np.full(n, height), np.full(n, width))[view, i].tolist()
    out = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    way = F.InterpolationMode(settings.interpolation)
    out = F.resized_crop(out, *box, [settings.size] * 2, way, antialias=True).clamp(0, 1)  # as images of bytes are
    if table.flip[view, i]:
        out = F.horizontal_flip(out)
    amounts = [float(getattr(table, name)[view, i]) for name in ("brightness", "contrast", "saturation", "hue")]
    if amounts != [1, 1, 1, 0]:
        for kind in table.order[view, i]:
            out = FUNCTIONS[kind](out, amounts[kind])
    if table.gray[view, i]:
        out = F.rgb_to_grayscale(out, num_output_channels=3)
    if table.sigma[view, i] > 0:
        out = F.gaussian_blur(out, [kernel_size(settings.size)] * 2, [float(table.sigma[view, i])] * 2)
    if table.threshold[view, i] <= 1:
        out = F.solarize(out, float(table.threshold[view, i]))
    return F.normalize(out, list(MEAN), list(STD))


def assert_parity(views, images, path, tolerance, steps=1, **replaced):
    """The tables' numbers may be replaced, by what is broadcast to [V, n, …]."""
    std = torch.tensor(STD).view(3, 1, 1)
    for step in range(steps):
        batch = views.prepare(images, 4, step, np.arange(len(images)))
        for g, table in enumerate(batch.tables):
            fields = {
                name: np.broadcast_to(np.asarray(value, getattr(table, name).dtype), getattr(table, name).shape)
                for name, value in replaced.items()
            }
            batch.tables[g] = dataclasses.replace(table, **fields)
        made = getattr(views, path)(batch)
        for settings, group, table in zip(views.groups, made, batch.tables, strict=True):
            for v, view in enumerate(settings):
                for i, image in enumerate(images):
                    expected = torchvisions(image, view, table, v, i)
                    difference = ((group[v, i] - expected) * std).abs().max()
                    assert difference <= tolerance, (step, v, i, float(difference))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_crop_and_flip(shape, size, interpolation, path):
    views = simclr(size=size, interpolation=interpolation, **{**ALONE, "flip": 0.5})
    assert_parity(views, photographs(*shape), path, TOLERANCE, steps=2)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "operation",
    [
        {"brightness": [[0.2], [1.8]]},
        {"contrast": [[0.2], [1.8]]},
        {"saturation": [[0.2], [1.8]]},
        {"hue": [[-0.5, -0.2, -0.1, 0.0, 0.05, 0.1, 0.2, 0.5]]},
        {"gray": True},
        {"sigma": [[0.1, 0.2, 0.5, 1.0, 1.5, 1.7, 1.9, 2.0]]},
        {"threshold": 0.5},
    ],
    ids=lambda operation: next(iter(operation)),
)
def test_each_operation(operation, size, path):
    assert_parity(simclr(size=size, **ALONE), photographs(45, 33), path, TOLERANCE, **operation)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["simclr", "byol", "dino", "swav"])
def test_the_whole_chain(name, shape, path):
    sizes = {"size": 33} if name in ("simclr", "byol") else {"size": 33, "local_size": 17}
    assert_parity(VIEWS[name](**sizes), photographs(*shape, n=4), path, CHAIN, steps=2)


@pytest.mark.parametrize("path", PATHS)
def test_the_whole_chain_at_224_pixels(path):
    assert_parity(VIEWS["byol"](), photographs(375, 299, n=4), path, CHAIN)


@pytest.mark.parametrize("path", PATHS)
def test_host_crops_are_those_of_torchvision_rounded_to_bytes(path):
    images = [photographs(*shape, n=1)[0] for shape in SHAPES for _ in range(2)]
    views = simclr(size=33, **{**ALONE, "flip": 0.5})
    batch = views.prepare(images, 4, 0, np.arange(8))
    (made,), (table,) = getattr(views, path)(batch), batch.tables
    heights, widths = (np.array([p.shape[side] for p in images]) for side in (0, 1))
    boxes = table.boxes(heights, widths)
    for v in range(2):
        for i, image in enumerate(images):
            whole = torch.from_numpy(image).permute(2, 0, 1).float() / 255
            expected = F.resized_crop(whole, *boxes[v, i].tolist(), [33, 33], antialias=True)
            expected = expected.flip(-1) if table.flip[v, i] else expected
            pixels = made[v, i] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
            assert (pixels - expected).abs().max() <= 0.5 / 255 + TOLERANCE
