"""Uniform noise for every pixel from one key per image, computed on the device of the images.

The counter-based generator of `wildfern.generators.counter_rng` in torch's signed integers, which wrap like unsigned ones: pixel
j of an image is draw j of its key, with the same bits on every device.
"""

import math

import torch
from torch import Tensor

from wildfern.generators.counter_rng import GOLDEN


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


_GOLDEN, _M1, _M2 = _signed(int(GOLDEN)), _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shift_right(z: Tensor, places: int) -> Tensor:
    """Logical shift of int64."""
    return (z >> places).bitwise_and_((1 << (64 - places)) - 1)


def uniform_pixels(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """float32[N, *shape] in [0, 1), on the device of `keys`: int64[N] holding the bits of counter keys."""
    counters = torch.arange(1, math.prod(shape) + 1, device=keys.device, dtype=torch.int64).mul_(_GOLDEN)
    z = keys[:, None] + counters
    z = z.bitwise_xor_(_shift_right(z, 30)).mul_(_M1)
    z = z.bitwise_xor_(_shift_right(z, 27)).mul_(_M2)
    z = z.bitwise_xor_(_shift_right(z, 31))
    return _shift_right(z, 40).to(torch.float32).mul_(2.0**-24).view(len(keys), *shape)
