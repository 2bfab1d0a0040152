"""Corruptions by noise: Gaussian, shot, impulse and speckle."""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import pdtr
from torch import Tensor

from wildfern.generators.counter_rng import Keys
from wildfern.ssl.evaluation.corruptions.draws import normal_draws, uniform_draws
from wildfern.ssl.evaluation.corruptions.settings import corruption


@corruption(large=(0.08, 0.12, 0.18, 0.26, 0.38), small=(0.04, 0.06, 0.08, 0.09, 0.10))
def gaussian_noise(images: Tensor, deviation: float, keys: Keys) -> Tensor:
    return images + deviation * normal_draws(keys, images.shape[1:], images.device)


@lru_cache(maxsize=10)
def _poisson_thresholds(photons: int) -> NDArray[np.int64]:
    """int64[256, K]: 2**24 P(≤ k photons) of each of 256 gray levels, plus 2**25 × level, so that all are in order."""
    levels = np.arange(256)[:, None]
    counts = np.arange(int(photons + 8 * math.sqrt(photons) + 16))
    return np.round(pdtr(counts, levels * photons / 255) * 2**24).astype(np.int64) + levels * 2**25


@corruption(large=(60, 25, 12, 5, 3), small=(500, 250, 100, 75, 50))
def shot_noise(images: Tensor, photons: int, keys: Keys) -> Tensor:
    """Poisson numbers of photons, `photons` on average in a white pixel, by inversion of their distribution."""
    thresholds = torch.from_numpy(_poisson_thresholds(photons)).to(images.device)
    levels = (images.clamp(0, 1) * 255).round().long()
    draws = (uniform_draws(keys, images.shape[1:], images.device) * 2**24).long()
    found = torch.searchsorted(thresholds.flatten(), levels * 2**25 + draws, right=True)
    return (found - levels * thresholds.shape[1]).float() / photons


@corruption(large=(0.03, 0.06, 0.09, 0.17, 0.27), small=(0.01, 0.02, 0.03, 0.05, 0.07))
def impulse_noise(images: Tensor, share: float, keys: Keys) -> Tensor:
    """Of the values of each channel, `share` become 0 or 1."""
    draws = uniform_draws(keys, images.shape[1:], images.device)
    return torch.where(draws < share, (draws < share / 2).float(), images)


@corruption(large=(0.15, 0.2, 0.35, 0.45, 0.6), small=(0.06, 0.1, 0.12, 0.16, 0.2))
def speckle_noise(images: Tensor, deviation: float, keys: Keys) -> Tensor:
    return images * (1 + deviation * normal_draws(keys, images.shape[1:], images.device))
