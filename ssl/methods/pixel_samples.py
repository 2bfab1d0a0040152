"""Random pixels of images for losses that compare pixels: a function of the image, the same on any number of ranks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wildfern.ssl.augmentation.pixel_noise import uniform_pixels
from wildfern.ssl.methods.batch import Batch

_BITS = 2**24


@dataclass(frozen=True)
class PixelSample:
    """Up to K pixels of each of n images, in random order.

    places: int64[n, K], row · width + column. chosen: bool[n, K], False for places that fill the row up.
    order: float32[n, K], the random numbers that they were chosen by, ascending in each row.
    """

    places: Tensor
    chosen: Tensor
    order: Tensor


def pixel_order(batch: Batch, name: str, height: int, width: int) -> Tensor:
    """float32[n, H · W] in [0, 1): a number for each pixel of each image of the batch, from (seed, step, position, name)."""
    halves = (batch.uniform(name, 2) * _BITS).long()
    return uniform_pixels(halves[:, 0] * _BITS + halves[:, 1], (height * width,))


def sample_pixels(candidates: Tensor, order: Tensor, share: float, most: int, least: int) -> PixelSample:
    """⌈share · count⌉ of each image's candidates, at most `most`: those with the smallest numbers in `order`.

    `candidates` bool[n, H, W], `order` as of `pixel_order`. None of images with fewer than `least` candidates.
    """
    candidates = candidates.flatten(1)
    found = candidates.sum(dim=1)
    wanted = torch.where(found < least, 0, (share * found).ceil().long().clamp(max=most))
    ranked = torch.where(candidates, order, torch.inf)
    numbers, places = ranked.topk(min(most, ranked.shape[1]), dim=1, largest=False)
    chosen = torch.arange(places.shape[1], device=places.device) < wanted[:, None]
    return PixelSample(places, chosen, numbers)


def vectors_at(maps: Tensor, places: Tensor) -> Tensor:
    """float[n, K, C] of maps float[n, C, H, W] at places int64[n, K]."""
    return maps.flatten(2).gather(2, places[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)
