"""Corruptions by blur: defocus, glass, motion, zoom and Gaussian."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from torch import Tensor

from wildfern.generators.counter_rng import Keys, fold, uniform
from wildfern.ssl.evaluation.corruptions.draws import uniform_draws
from wildfern.ssl.evaluation.corruptions.image_filters import correlate, motion_kernels, separable, smoothed, zoomed
from wildfern.ssl.evaluation.corruptions.settings import corruption


@lru_cache(maxsize=10)
def _disk(radius: float, sigma: float) -> NDArray[np.float32]:
    """A disk of sum 1, its edge smoothed by a bell of 3 or 5 taps: float32[1, 2R + 1, 2R + 1]."""
    reach, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    squares = np.arange(-reach, reach + 1) ** 2
    disk = (squares[:, None] + squares <= radius**2).astype(np.float64)
    disk /= disk.sum()
    bell = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * sigma**2))
    for axis in (0, 1):
        disk = correlate1d(disk, bell / bell.sum(), axis, mode="mirror")
    used = min(reach, int(radius) + taps)  # the rest is 0
    inside = slice(reach - used, reach + used + 1)
    return disk[None, inside, inside].astype(np.float32)


@corruption(
    large=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
)
def defocus_blur(images: Tensor, numbers: tuple[float, float], keys: Keys) -> Tensor:
    return correlate(images, _disk(*numbers), "reflect")


@corruption(
    large=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
)
def glass_blur(images: Tensor, numbers: tuple[float, int, int], keys: Keys) -> Tensor:
    """From bottom right to top left, each pixel becomes a copy of one near it, which may be a copy already.

    The published code was to swap the two, but its assignment between views of one array copies. A pixel refers to another, that
    one to a third, and so on to one that was not visited before: all follow their references at once, 1, 2, 4 … at a time.
    """
    sigma, reach, rounds = numbers
    size, device = images.shape[3], images.device
    area = size * size
    blurred = (smoothed(images, sigma) * 255 + 1e-3).floor() / 255  # 1e-3: bytes stay what they are
    place = torch.arange(area, device=device)
    row, column = place // size, place % size
    visited = (torch.minimum(row, column) > reach) & (torch.maximum(row, column) <= size - reach)
    for number in range(rounds):
        shift = (uniform_draws(fold(keys, number), (2, area), device) * (2 * reach)).long() - reach
        other = torch.where(visited, place + shift[:, 0] * size + shift[:, 1], place)
        # References below `area` are to what a pixel has become, others to what it was.
        refers = torch.where(visited[other] & (other > place), other, other + area)
        refers = torch.cat([refers, (place + area).expand(len(images), -1)], 1)
        while (refers[:, :area] < area).any():
            refers = refers.gather(1, refers)
        source = (refers[:, None, :area] - area).expand(-1, images.shape[1], -1)
        blurred = blurred.flatten(2).gather(2, source).view_as(images)
    return smoothed(blurred, sigma)


@corruption(
    large=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    small=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
)
def motion_blur(images: Tensor, numbers: tuple[int, float], keys: Keys) -> Tensor:
    return correlate(images, motion_kernels(*numbers, 90 * uniform(keys, 1)[:, 0] - 45), "replicate")


@corruption(
    large=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    small=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
)
def zoom_blur(images: Tensor, numbers: tuple[float, float], keys: Keys) -> Tensor:
    """The mean of the image and of its enlargements by 1, 1 + step …"""
    stop, step = numbers
    factors = np.arange(1, stop, step)
    total = images.clone()
    for factor in factors:
        total += separable(images, zoomed(images.shape[3], float(factor)))
    return total / (len(factors) + 1)


@corruption(large=(1, 2, 3, 4, 6), small=(0.4, 0.6, 0.7, 0.8, 1))
def gaussian_blur(images: Tensor, sigma: float, keys: Keys) -> Tensor:
    return smoothed(images, sigma)
