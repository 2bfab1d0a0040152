"""Digital corruptions: contrast, elastic transform, pixels, JPEG and saturation."""

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wildfern.generators.counter_rng import Keys, fold, uniform
from wildfern.ssl.evaluation.corruptions.draws import uniform_draws
from wildfern.ssl.evaluation.corruptions.image_filters import separable, smoothing
from wildfern.ssl.evaluation.corruptions.settings import corruption


@corruption(large=(0.4, 0.3, 0.2, 0.1, 0.05), small=(0.75, 0.5, 0.4, 0.3, 0.15))
def contrast(images: Tensor, factor: float, keys: Keys) -> Tensor:
    """Moves the values of each channel towards their mean."""
    mean = images.mean((2, 3), keepdim=True)
    return (images - mean) * factor + mean


# The published numbers are 244 times these; 244 is theirs, for images of 224 px.
_ELASTIC_LARGE = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
_ELASTIC_SMALL = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))


@corruption(
    large=[tuple(244 * part for part in numbers) for numbers in _ELASTIC_LARGE],
    small=[tuple(32 * part for part in numbers) for numbers in _ELASTIC_SMALL],
)
def elastic_transform(images: Tensor, numbers: tuple[float, float, float], keys: Keys) -> Tensor:
    """An affine map that moves three points at random, then local shifts (Simard et al., 2003); beyond the border, a mirror."""
    amount, sigma, reach = numbers
    size, device = images.shape[3], images.device
    third = size // 3
    points = np.array([(third, third), (third, -third), (-third, -third)]) + size // 2
    moved = points + reach * (2 * uniform(fold(keys, 1), 6).reshape(-1, 3, 2) - 1)
    back = np.linalg.solve(np.pad(moved, [(0, 0), (0, 0), (0, 1)], constant_values=1.0), np.stack([points] * len(keys)))
    matrix = torch.from_numpy(back.astype(np.float32)).to(device)[:, None]  # of (x, y, 1)
    line = torch.arange(size, device=device, dtype=torch.float32)
    pixels = torch.stack([line.expand(size, size), line[:, None].expand(size, size)], 2)
    grid = 2 * (pixels @ matrix[:, :, :2] + matrix[:, :, 2:]) / (size - 1) - 1  # the outer pixels are not repeated
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)
    shifts = separable(2 * uniform_draws(keys, (2, size, size), device) - 1, smoothing(size, sigma, "reflect", 3.0))
    grid = (2 * (pixels + amount * shifts.permute(0, 2, 3, 1)) + 1) / size - 1  # they are
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _by_pillow(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """The change of each image [C, S, S], C = 1 or 3, rounded to bytes."""
    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    found = [np.asarray(change(Image.fromarray(one[..., 0] if one.shape[2] == 1 else one))) for one in pixels]
    return torch.from_numpy(np.stack(found).reshape(pixels.shape)).to(images.device).permute(0, 3, 1, 2).float() / 255


@corruption(large=(0.6, 0.5, 0.4, 0.3, 0.25), small=(0.95, 0.9, 0.85, 0.75, 0.65))
def pixelate(images: Tensor, share: float, keys: Keys) -> Tensor:
    size = images.shape[3]
    fewer, box = int(size * share), Image.Resampling.BOX
    found = _by_pillow(
        images.flatten(0, 1)[:, None], lambda image: image.resize((fewer, fewer), box).resize((size, size), box)
    )
    return found.view_as(images)


@corruption(large=(25, 18, 15, 10, 7), small=(80, 65, 58, 50, 40), rgb=True)
def jpeg_compression(images: Tensor, quality: int, keys: Keys) -> Tensor:
    def change(image: Image.Image) -> Image.Image:
        stored = io.BytesIO()
        image.save(stored, "JPEG", quality=quality)
        return Image.open(stored)

    return _by_pillow(images, change)


@corruption(
    large=((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    small=((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    rgb=True,
    gray=False,
)
def saturate(images: Tensor, numbers: tuple[float, float], keys: Keys) -> Tensor:
    """HSV saturation times a factor, plus a summand: value - channel is proportional to it. Gray has the hue of red."""
    factor, summand = numbers
    value = images.amax(1, keepdim=True)
    span = value - images.amin(1, keepdim=True)
    saturation = (factor * span / value.clamp(min=1e-12) + summand).clamp(0, 1)
    red = value * images.new_tensor([0.0, 1.0, 1.0]).view(3, 1, 1)
    away = torch.where(span > 0, (value - images) * value / span.clamp(min=1e-12), red)
    return value - away * saturation
