"""Random erasing (Zhong et al., AAAI 2020): a rectangle of noise in a share of the images, as DeiT and MAE use it."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.counter_rng import Keys, fold, uniform
from wildfern.ssl.augmentation.operation import on_device
from wildfern.ssl.augmentation.pixel_noise import uniform_pixels

# timm's, with which DeiT and MAE train; the paper has areas of 0.02 to 0.4.
AREA = (0.02, 1 / 3)
RATIO = (0.3, 1 / 0.3)
ATTEMPTS = 10


def draw_rectangles(keys: Keys, probability: float, height: int, width: int) -> NDArray[np.int64]:
    """int64[n, 4] (top, left, height, width), one for each key uint64[n]; of no size for an image that is not erased.

    Area and log ratio of the sides are uniform. Of ten attempts the first that is smaller than the image is taken, if any.
    """
    chosen = uniform(keys, 1)[:, 0] < probability
    u = uniform(fold(keys, 0), 4 * ATTEMPTS).reshape(len(keys), ATTEMPTS, 4)
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * u[..., 0])
    ratio = np.exp(math.log(RATIO[0]) + math.log(RATIO[1] / RATIO[0]) * u[..., 1])
    rows, columns = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (rows < height) & (columns < width)
    top, left = np.floor(u[..., 2] * (height - rows + 1)), np.floor(u[..., 3] * (width - columns + 1))
    first = np.stack([top, left, rows, columns], axis=-1)[np.arange(len(keys)), fits.argmax(axis=1)]
    return np.where((chosen & fits.any(axis=1))[:, None], first, 0).astype(np.int64)


def random_erasing(images: Tensor, keys: Keys, probability: float) -> Tensor:
    """float[n, C, H, W], already normalized, with normal noise for every pixel of the rectangles; keys: uint64[n]."""
    rectangles = draw_rectangles(keys, probability, *images.shape[-2:])
    which = np.flatnonzero(rectangles[:, 2] * rectangles[:, 3])
    if not len(which):
        return images
    rows = on_device(torch.from_numpy(which), images.device)
    noise = normal_pixels(
        on_device(torch.from_numpy(fold(keys[which], 1).view(np.int64)), images.device), images.shape[1:]
    )
    top, left, tall, wide = on_device(torch.from_numpy(rectangles[which]), images.device)[:, :, None].unbind(1)
    down, right = (torch.arange(side, device=images.device)[None] for side in images.shape[-2:])
    inside = ((down >= top) & (down < top + tall))[:, None, :, None] & ((right >= left) & (right < left + wide))[
        :, None, None
    ]
    erased = images.clone()
    erased[rows] = torch.where(inside, noise.to(images.dtype), images[rows])
    return erased


def normal_pixels(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """float32[n, *shape] of a standard normal distribution (Box & Muller, 1958), from the bits of counter keys, int64[n]."""
    u, v = uniform_pixels(keys, (2, *shape)).unbind(1)
    return (-2 * torch.log1p(-u)).sqrt() * torch.cos(2 * math.pi * v)
