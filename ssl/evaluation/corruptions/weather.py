"""Corruptions by weather and light: snow, frost, fog and brightness."""

import numpy as np
import torch
from torch import Tensor

from wildfern.generators.counter_rng import Keys, fold, integers, uniform
from wildfern.ssl.evaluation.corruptions.draws import normal_draws, uniform_draws
from wildfern.ssl.evaluation.corruptions.image_filters import correlate, motion_kernels, separable, zoomed
from wildfern.ssl.evaluation.corruptions.settings import corruption

# Of the published photographs of ice in use (two are the same): the mean color of each; the standard deviation within crops;
# and the exponent that gives ridges the slope of their amplitude spectrum, -0.8 on average. Published small images get the
# photographs reduced to a fifth, with a slope of -1.1.
_ICE_COLORS = ((0.30, 0.58, 0.65), (0.78, 0.79, 0.83), (0.78, 0.79, 0.83), (0.57, 0.62, 0.67), (0.39, 0.44, 0.49))
_ICE_LARGE, _ICE_SMALL = (0.09, 1.05), (0.06, 1.28)


@corruption(
    large=(
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    small=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    rgb=True,
)
def snow(images: Tensor, numbers: tuple[float, float, float, float, int, float, float], keys: Keys) -> Tensor:
    mean, deviation, factor, threshold, radius, sigma, share = numbers
    size = images.shape[3]
    flakes = separable(mean + deviation * normal_draws(keys, (1, size, size), images.device), zoomed(size, factor))
    flakes = (torch.where(flakes < threshold, 0, flakes).clamp(0, 1) * 255).floor() / 255
    kernels = motion_kernels(radius, sigma, 90 * uniform(fold(keys, 1), 1)[:, 0] - 135)
    flakes = (correlate(flakes, kernels, "replicate") * 255).round() / 255
    gray = (images * images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    return share * images + (1 - share) * torch.maximum(images, 1.5 * gray + 0.5) + flakes + flakes.flip(2, 3)


@corruption(
    large=[(*shares, *_ICE_LARGE) for shares in ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))],
    small=[(*shares, *_ICE_SMALL) for shares in ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))],
    rgb=True,
)
def frost(images: Tensor, numbers: tuple[float, float, float, float], keys: Keys) -> Tensor:
    """Adds a texture like ice, not a published photograph: ridges -|g| of a field g with a power-law spectrum, in its color."""
    of_image, of_ice, deviation, slope = numbers
    size, device = images.shape[3], images.device
    frequency = torch.fft.fftfreq(size, device=device)[:, None].hypot(torch.fft.rfftfreq(size, device=device))
    spectrum = torch.fft.rfft2(normal_draws(keys, (1, size, size), device)) * frequency.clamp(min=1 / size) ** -slope
    ridges = -torch.fft.irfft2(spectrum, s=(size, size)).abs()
    ridges = (ridges - ridges.mean((2, 3), keepdim=True)) / ridges.std((2, 3), keepdim=True)
    colors = images.new_tensor(np.array(_ICE_COLORS)[integers(fold(keys, 1), 1, len(_ICE_COLORS))[:, 0]])
    return of_image * images + of_ice * (colors[:, :, None, None] + deviation * ridges).clamp(0, 1)


def _plasma(keys: Keys, size: int, decay: float, device: torch.device) -> Tensor:
    """A field by diamonds and squares, [N, 1, S, S] in [0, 1]: a corner of a torus whose side is a power of two.

    As in the published code, the amplitude falls by the square of the decay from level to level.
    """
    side = 1 << (size - 1).bit_length()
    noise = 2 * uniform_draws(keys, (side, side), device) - 1
    field = torch.zeros_like(noise)
    step, amplitude = side, 1.0
    while step >= 2:
        half, noisy = step // 2, amplitude * noise
        corner = field[:, ::step, ::step]
        down, across = corner + corner.roll(-1, 1), corner + corner.roll(-1, 2)
        center = (down + down.roll(-1, 2)) / 4 + noisy[:, half::step, half::step]
        field[:, half::step, half::step] = center
        field[:, ::step, half::step] = (across + center + center.roll(1, 1)) / 4 + noisy[:, ::step, half::step]
        field[:, half::step, ::step] = (down + center + center.roll(1, 2)) / 4 + noisy[:, half::step, ::step]
        step, amplitude = half, amplitude / decay**2
    field = field - field.amin((1, 2), keepdim=True)
    return (field / field.amax((1, 2), keepdim=True))[:, None, :size, :size]


@corruption(
    large=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    small=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
)
def fog(images: Tensor, numbers: tuple[float, float], keys: Keys) -> Tensor:
    weight, decay = numbers
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + weight * _plasma(keys, images.shape[3], decay, images.device)) * brightest / (brightest + weight)


@corruption(large=(0.1, 0.2, 0.3, 0.4, 0.5), small=(0.05, 0.1, 0.15, 0.2, 0.3))
def brightness(images: Tensor, summand: float, keys: Keys) -> Tensor:
    """Adds to the value of HSV; one factor for all channels leaves hue and saturation as they are."""
    value = images.amax(1, keepdim=True)
    brighter = (value + summand).clamp(max=1)
    return torch.where(value > 0, images * (brighter / value.clamp(min=1e-12)), brighter)
