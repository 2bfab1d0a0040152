"""Color jitter, grayscale and solarize as in torchvision, for a batch with its own factors and order for each image.

Brightness, contrast and saturation blend an image with black, its mean gray and its grayscale: one pass with per-image
coefficients does any of them. Hue has one of four places in the order, so three blends (before it), hue, and three blends
(after it) give every order exactly; a blend that does not apply to an image has factor 1.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from wildfern.ssl.augmentation.operation import IntensityOperation, on_device
from wildfern.ssl.augmentation.table import AugmentationParameters

_CONTRAST, _SATURATION, _HUE = 1, 2, 3


def grayscale(images: Tensor) -> Tensor:
    """Luma of float[M, 3, H, W] with torchvision's weights (ITU-R 601): float[M, 1, H, W]."""
    r, g, b = images.unbind(1)
    return (0.2989 * r).add_(g, alpha=0.587).add_(b, alpha=0.114).unsqueeze(1)


def blend(images: Tensor, factor: Tensor, mean_gray: Tensor, gray: Tensor) -> Tensor:
    """clamp(f·x + (1 − f)·(c·mean gray + s·gray)) in place; f, c, s are float[M, 1, 1, 1], c and s are 0 or 1."""
    luma = grayscale(images)
    other = luma.mean(dim=(1, 2, 3), keepdim=True).mul_(mean_gray) + luma.mul_(gray)
    return images.mul_(factor).add_(other.mul_(1 - factor)).clamp_(0, 1)


def rotate_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue of float[M, 3, H, W] in [0, 1] by float[M, 1, 1] turns; value and HSV saturation are kept."""
    r, g, b = images.unbind(1)
    value, least = images.amax(1), images.amin(1)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, 1.0)
    sextant = torch.where(
        value == r, (g - b) / safe, torch.where(value == g, (b - r) / safe + 2.0, (r - g) / safe + 4.0)
    )
    sextant = sextant.add_(6 * turns)
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = torch.remainder(sextant + offset, 6.0)
        channels.append(value - chroma * torch.minimum(k, 4.0 - k).clamp_(0.0, 1.0))
    return torch.stack(channels, dim=1)


def brightness_contrast(images: Tensor, factors: Tensor, is_contrast: Tensor) -> Tensor:
    """The part of ColorJitter that needs no RGB, for float[M, C, H, W] in [0, 1]; contrast is about the mean of all channels.

    `factors` and `is_contrast` float[M, 6] are those of `ColorJitter.parameters_from`; a factor of 1 changes nothing.
    """
    images = images.clone()
    for place in range(factors.shape[1]):
        factor, contrast = (x[:, place, None, None, None].to(images.dtype) for x in (factors, is_contrast))
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = images.mul_(factor).add_(mean.mul_(contrast).mul_(1 - factor)).clamp_(0, 1)
    return images


class ColorJitter(IntensityOperation):
    """torchvision's ColorJitter applied with probability `p` and RandomGrayscale with probability `gray`, as a kornia module.

    Factors are uniform in [max(0, 1 − x), 1 + x]; the order of the four operations is random for each image. kornia's own
    `p` stays 1. Raises ValueError for settings out of range, and for images without three channels.
    """

    named: ClassVar = {"jitter": "p"}

    def __init__(
        self,
        brightness: float = 0.8,
        contrast: float = 0.8,
        saturation: float = 0.8,
        hue: float = 0.2,
        p: float = 0.8,
        gray: float = 0.0,
        *,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        super().__init__(
            same_on_batch=same_on_batch,
            keepdim=keepdim,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            jitter=p,
            gray=gray,
        )

    def parameters_from(self, table: AugmentationParameters, height: int, width: int) -> dict[str, np.ndarray]:
        order = table.flat("order")
        hue_place = (order == _HUE).argmax(axis=1)
        blends = order[order != _HUE].reshape(-1, 3)
        factors = np.stack([table.flat(n) for n in ("brightness", "contrast", "saturation")], axis=1)
        factors = np.take_along_axis(factors, blends, axis=1)
        before = np.arange(3)[None, :] < hue_place[:, None]
        return {
            "factors": np.concatenate([np.where(before, factors, 1.0), np.where(before, 1.0, factors)], axis=1),
            "is_contrast": np.tile(blends == _CONTRAST, 2).astype(np.float64),
            "is_saturation": np.tile(blends == _SATURATION, 2).astype(np.float64),
            "hue": table.flat("hue"),
            "gray": table.flat("gray"),
        }

    def apply_transform(self, input: Tensor, params: dict, flags: dict, transform: Tensor | None = None) -> Tensor:
        if input.shape[1] != 3:
            raise ValueError(f"ColorJitter needs RGB images [N, 3, H, W], got {list(input.shape)}")
        factors, hue, *kinds = (
            on_device(params[name].to(input.dtype), input.device)
            for name in ("factors", "hue", "is_contrast", "is_saturation")
        )
        gray = on_device(params["gray"], input.device)
        images = input.clone()
        for place in range(6):
            if place == 3:
                images = rotate_hue(images, hue[:, None, None])
            coefficients = (x[:, place, None, None, None] for x in (factors, *kinds))
            images = blend(images, *coefficients)
        return torch.where(gray[:, None, None, None], grayscale(images), images)


class Solarize(IntensityOperation):
    """Inverts values at or above one half, with probability `p`, as a kornia module, whose own `p` stays 1.

    Raises ValueError if `p` is not a probability.
    """

    named: ClassVar = {"solarize": "p"}

    def __init__(self, p: float = 0.2, *, same_on_batch: bool = False, keepdim: bool = False) -> None:
        super().__init__(same_on_batch=same_on_batch, keepdim=keepdim, solarize=p)

    def parameters_from(self, table: AugmentationParameters, height: int, width: int) -> dict[str, np.ndarray]:
        return {"threshold": table.flat("threshold")}

    def apply_transform(self, input: Tensor, params: dict, flags: dict, transform: Tensor | None = None) -> Tensor:
        threshold = on_device(params["threshold"].to(input.dtype), input.device)[:, None, None, None]
        return torch.where(input >= threshold, 1 - input, input)
