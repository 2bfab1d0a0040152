"""Images for tests of corruptions, what an operation draws for them, and filters by scipy or as plain loops."""

import colorsys

import numpy as np
import scipy.ndimage
import scipy.stats
import torch

from wildfern.generators.counter_rng import fold, key
from wildfern.ssl.augmentation.pixel_noise import uniform_pixels
from wildfern.ssl.evaluation.corruptions.all_corruptions import corrupt

KEYS = fold(np.uint64(key("tests")), np.arange(2))


def synthetic(size, shift=0.0):
    """A smooth image with a checkerboard in blue, uint8[S, S, 3]."""
    y, x = np.mgrid[:size, :size] / size
    red, green = 0.5 + 0.4 * np.sin(7 * x + 3 * y + shift), 0.5 + 0.35 * np.cos(23 * x * y + 5 * y)
    blue = np.where((x * 8).astype(int) + (y * 8).astype(int) & 1, 0.8, 0.25)
    return np.round(np.stack([red, green, blue], 2) * 255).astype(np.uint8)


def two_images(size):
    """uint8[2, S, S, 3]."""
    return np.stack([synthetic(size), synthetic(size, 2.0)])


def as_images(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def corrupted(pixels, name, severity):
    """As float64[N, S, S, C]."""
    return corrupt(as_images(pixels), name, severity, KEYS[: len(pixels)]).permute(0, 2, 3, 1).double().numpy()


def draws(name, shape, number=None):
    """What an operation draws for both images, float64[2, *shape]."""
    keys = fold(KEYS, key(name))
    keys = keys if number is None else fold(keys, number)
    return uniform_pixels(torch.from_numpy(keys.view(np.int64)), shape).double().numpy()


def normal_draws(name, shape):
    return scipy.stats.norm.ppf(draws(name, shape) + 2.0**-25)


def in_hsv(change, pixels):
    """float64[N, S, S, 3] after the change of (hue, saturation, value) of each pixel."""
    rows = [change(*colorsys.rgb_to_hsv(*value)) for value in pixels.reshape(-1, 3) / 255]
    return np.array([colorsys.hsv_to_rgb(*row) for row in rows]).reshape(pixels.shape)


def numbers(pixels, small, large):
    return small if pixels.shape[1] == 32 else large


def close(found, expected, levels=0.02):
    """Equal up to `levels` of 255, which is far below a rounding to bytes."""
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=levels / 255, rtol=0)


def zoomed(image, factor):
    """The center of an image [S, S, …], enlarged by `factor` to its size."""
    size = len(image)
    crop = int(np.ceil(size / factor))
    top = (size - crop) // 2
    layer = scipy.ndimage.zoom(image[top : top + crop, top : top + crop], (factor, factor, 1)[: image.ndim], order=1)
    trim = (len(layer) - size) // 2
    return layer[trim : trim + size, trim : trim + size]


def motion_blurred(image, radius, sigma, degrees):
    size, taps = len(image), np.arange(2 * radius + 1)
    weights = np.exp(-(taps**2) / (2 * sigma**2))
    out = np.zeros_like(image)
    for tap, weight in zip(taps, weights / weights.sum(), strict=True):
        dy, dx = (int(np.ceil(tap * f(np.deg2rad(degrees)) - 0.5)) for f in (np.sin, np.cos))
        rows, columns = (np.clip(np.arange(size) + d, 0, size - 1) for d in (dy, dx))
        out += weight * image[rows][:, columns]
    return out
