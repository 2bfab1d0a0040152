"""Each operation against Pillow, called like in the published code."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from wildfern.ssl.augmentation.augmix_operations import OPERATIONS, augmented

HEIGHT, WIDTH = 36, 45


def images(n, seed=0):
    smooth = torch.rand(n, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(smooth, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)
    return (smooth * 200 + 20).round() / 255


def pillow(name, image, level):
    affine = {
        "shear_x": (1, level * 0.3 / 10, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, level * 0.3 / 10, 1, 0),
        "translate_x": (1, 0, int(level * (WIDTH / 3) / 10), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, int(level * (HEIGHT / 3) / 10)),
    }
    if name in affine:
        return image.transform((WIDTH, HEIGHT), Image.Transform.AFFINE, affine[name], Image.Resampling.BILINEAR)
    if name == "rotate":
        return image.rotate(int(level * 30 / 10), Image.Resampling.BILINEAR)
    if name == "posterize":
        return ImageOps.posterize(image, 4 - int(abs(level) * 4 / 10))
    if name == "solarize":
        return ImageOps.solarize(image, 256 - int(abs(level) * 256 / 10))
    return {"autocontrast": ImageOps.autocontrast, "equalize": ImageOps.equalize}[name](image)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_match_pillow(name):
    level = np.array([0.3, 2.7, -2.9, 6.1, -9.5, 9.9])
    x = images(6)
    ours = augmented(x, np.full(6, OPERATIONS.index(name)), level)
    exact = name in ("equalize", "posterize", "solarize", "translate_x", "translate_y")
    for one, shown, strength in zip(x, ours, level, strict=True):
        image = Image.fromarray((one * 255).round().byte().permute(1, 2, 0).numpy())
        expected = np.asarray(pillow(name, image, strength)).astype(np.float32) / 255
        difference = (shown.permute(1, 2, 0) - torch.from_numpy(expected)).abs()
        if exact:
            assert difference.max() < 1e-5
        else:  # Pillow rounds to 8 bits, and half a pixel at the frame's border is its own
            assert (difference < 1.6 / 255).float().mean() > 0.95
            assert difference.median() < 0.6 / 255
        assert (shown - one).abs().max() > 0.02 or abs(strength) < 0.5


def test_each_image_has_its_own_operation():
    x, level = images(10), np.linspace(-8, 9, 10)
    kind = np.arange(10) - 1
    together = augmented(x, kind, level)
    assert torch.equal(together[0], x[0])
    for i in range(10):
        torch.testing.assert_close(together[i], augmented(x[i : i + 1], kind[i : i + 1], level[i : i + 1])[0])
    assert together.min() >= 0
    assert together.max() <= 1


def test_constant_channels_are_unchanged():
    gray = torch.full((2, 3, 8, 8), 0.4)
    torch.testing.assert_close(augmented(gray, np.array([0, 1]), np.ones(2)), gray)
