"""What corruptions draw: uniform and normal values for every pixel, from one key per image."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wildfern.generators.counter_rng import Keys
from wildfern.ssl.augmentation.pixel_noise import uniform_pixels


def uniform_draws(keys: Keys, shape: Sequence[int], device: torch.device) -> Tensor:
    """float32[N, *shape] in [0, 1), of keys uint64[N]; the same bits on every device."""
    return uniform_pixels(torch.from_numpy(keys.view(np.int64)).to(device), tuple(shape))


def normal_draws(keys: Keys, shape: Sequence[int], device: torch.device) -> Tensor:
    """float32[N, *shape] of mean 0 and deviation 1, from the uniform draws of these keys."""
    # Halfway between the 2**24 values of the uniform draws: never 0 or 1.
    return (2 * uniform_draws(keys, shape, device) - (1 - 2.0**-24)).erfinv() * math.sqrt(2)
