"""Each operation against torchvision's, image by image, with the same drawn parameters."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kornia.augmentation import AugmentationSequential
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from wildfern.ssl.augmentation import ColorJitter, GaussianBlur, RandomResizedCropFlip, Solarize, simclr
from wildfern.ssl.augmentation.blur import kernel_size
from wildfern.ssl.augmentation.crop import crop_views
from wildfern.ssl.augmentation.operation import to_tensors
from wildfern.ssl.augmentation.table import draw_table


def images(n=24, height=40, width=56, seed=0):
    smooth = torch.rand(n, 3, 6, 7, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(smooth, (height, width), mode="bicubic").clamp(0, 1)


def table_for(operation, n=24, seed=3):
    return draw_table([operation.settings], seed, 5, np.arange(n), 0)


def tensors(operation, table, x):
    return to_tensors(operation.parameters_from(table, *x.shape[-2:]), x.device)


@pytest.mark.parametrize("size", [16, 33, 64])  # smaller and larger than most crops
def test_crop_and_flip(size):
    x, op = images(), RandomResizedCropFlip(size)
    table = table_for(op)
    ours = op(x, tensors(op, table, x))
    for i, (top, left, height, width) in enumerate(table.boxes(np.full(24, 40), np.full(24, 56))[0].tolist()):
        expected = F.resized_crop(x[i], top, left, height, width, [size, size], antialias=True)
        expected = expected.flip(-1) if table.flip[0, i] else expected
        torch.testing.assert_close(ours[i], expected, rtol=0, atol=2e-6)


def test_all_views_at_once_equal_each_view_alone():
    settings = [RandomResizedCropFlip(20).settings] * 3
    x = images()
    table = draw_table(settings, 1, 2, np.arange(24), 0)
    boxes, flip = torch.from_numpy(table.boxes(np.full(24, 40), np.full(24, 56))), torch.from_numpy(table.flip)
    channels_last = x.permute(0, 2, 3, 1).contiguous()
    together = crop_views(channels_last, boxes, flip, 20).view(3, 24, 3, 20, 20)
    for v in range(3):
        alone = crop_views(channels_last, boxes[v : v + 1], flip[v : v + 1], 20)
        torch.testing.assert_close(together[v], alone)


def test_color_jitter_in_the_order_drawn():
    x, op = images(), ColorJitter(p=0.8, gray=0.2)
    table = table_for(op)
    ours = op(x, tensors(op, table, x))
    functions = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    for i in range(len(x)):
        amounts = [getattr(table, n)[0, i] for n in ("brightness", "contrast", "saturation", "hue")]
        expected = x[i]
        for kind in table.order[0, i]:
            expected = functions[kind](expected, float(amounts[kind]))
        if table.gray[0, i]:
            expected = F.rgb_to_grayscale(expected, 3)
        torch.testing.assert_close(ours[i], expected, rtol=0, atol=2e-5)
    assert {tuple(o) for o in table.order[0]} != {tuple(table.order[0, 0])}


@pytest.mark.parametrize("side", [32, 96])
def test_blur(side):
    x, op = images(height=side, width=side), GaussianBlur(p=0.7)
    table = table_for(op)
    ours = op(x, tensors(op, table, x))
    for i, sigma in enumerate(table.sigma[0].tolist()):
        expected = F.gaussian_blur(x[i], [kernel_size(side)] * 2, [sigma] * 2) if sigma else x[i]
        torch.testing.assert_close(ours[i], expected, rtol=0, atol=2e-6)


def test_solarize():
    x, op = images(), Solarize(p=0.5)
    table = table_for(op)
    ours = op(x, tensors(op, table, x))
    for i, threshold in enumerate(table.threshold[0].tolist()):
        torch.testing.assert_close(ours[i], F.solarize(x[i], 0.5) if threshold <= 1 else x[i])


def test_modules_work_inside_kornia_containers():
    chain = AugmentationSequential(
        RandomResizedCropFlip(24), ColorJitter(gray=0.2), GaussianBlur(), Solarize(), data_keys=["input"]
    )
    torch.manual_seed(0)
    one = chain(images())
    torch.manual_seed(0)
    again = chain(images())
    assert one.shape == (24, 3, 24, 24)
    torch.testing.assert_close(one, again)
    assert (chain(images()) - one).abs().max() > 0.1


def kolmogorov_smirnov(a, b):
    a, b = np.sort(a), np.sort(b)
    at = np.concatenate([a, b])
    return np.abs(np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)).max()


def test_drawn_parameters_are_distributed_like_torchvisions():
    n = 4000
    table = draw_table([simclr(size=32).groups[0][0]], 11, 0, np.arange(n), 0)
    boxes = table.boxes(np.full(n, 40), np.full(n, 56))[0]
    torch.manual_seed(0)
    x = torch.zeros(3, 40, 56)
    theirs = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in _crops(x, n)])
    limit = 1.95 * np.sqrt(2 / n)  # two-sample Kolmogorov-Smirnov at 0.1 %
    for column, name in enumerate(("top", "left", "height", "width")):
        assert kolmogorov_smirnov(boxes[:, column], theirs[:, column]) < limit, name
    jitter = v2.ColorJitter(0.8, 0.8, 0.8, 0.2)
    drawn = [jitter.make_params([x]) for _ in range(n)]
    fired = table.brightness[0] != 1
    assert abs(fired.mean() - 0.8) < 0.03
    for name in ("brightness", "contrast", "saturation", "hue"):
        expected = np.array([d[f"{name}_factor"] for d in drawn])
        assert kolmogorov_smirnov(getattr(table, name)[0][fired], expected) < limit, name
    orders, counts = np.unique(table.order[0] @ [64, 16, 4, 1], return_counts=True)
    assert len(orders) == 24
    assert ((counts - n / 24) ** 2 / (n / 24)).sum() < 50  # chi-square, 23 degrees of freedom, 0.1 %: 49.7


def _crops(x, n):
    crop = v2.RandomResizedCrop(32)
    return [crop.make_params([x]) for _ in range(n)]


@pytest.mark.parametrize(
    ("ratio", "height", "width"),
    [((0.1, 0.3), 1, 7), ((3.0, 8.0), 7, 1), ((0.1, 0.15), 3, 5000), ((1e-40, 1e40), 3, 2)],
)
def test_every_crop_has_a_pixel_and_lies_in_its_image(ratio, height, width):
    settings = replace(simclr(size=32).groups[0][0], crop_ratio=ratio)
    table = draw_table([settings], 0, 0, np.arange(200), 0)
    top, left, high, wide = table.boxes(np.full(200, height), np.full(200, width))[0].T
    assert min(top.min(), left.min()) >= 0
    assert min(high.min(), wide.min()) >= 1
    assert (top + high).max() <= height
    assert (left + wide).max() <= width


def test_settings_may_be_arrays():
    plain = simclr(size=32).groups[0][0]
    arrays = replace(plain, flip=np.array(plain.flip), crop_scale=np.array(plain.crop_scale), hue=np.float64(plain.hue))
    assert arrays == plain
    one, two = (draw_table([settings], 0, 0, np.arange(9), 0) for settings in (plain, arrays))
    np.testing.assert_array_equal(one.crop, two.crop)
    np.testing.assert_array_equal(one.flip, two.flip)
