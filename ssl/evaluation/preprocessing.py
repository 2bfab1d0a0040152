"""Preprocessing of evaluation images: resize, center crop, normalize."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# The statistics of ImageNet-1k, the default of timm and torchvision.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Pixels = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
Precision = Literal["fp32", "bf16"]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """Size of the square crop (None: unchanged), normalization, device and precision of the backbone, and interpolation."""

    size: int | None = None
    device: torch.device | str | None = None
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    precision: Precision = "fp32"
    interpolation: Interpolation = "bilinear"


def resize_center_crop(
    pixels: Pixels,
    size: int | None,
    device: torch.device | str = "cpu",
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Images uint8[N, H, W, C], or a list of uint8[Hi, Wi, C], as float32[N, C, size, size] in [0, 1] on `device`.

    The shorter side is resized to `size` (anti-aliased), then the center is cropped. Images of one shape are copied as bytes
    and resized on the device; images of several shapes are cropped and resized one by one on the CPU, always bilinear.
    `size=None` does not resize images of one shape.
    """
    if not isinstance(pixels, np.ndarray):
        shapes = {image.shape for image in pixels}
        if len(shapes) == 1:
            pixels = np.stack(pixels)
        elif size is None:
            raise ValueError(f"images of {len(shapes)} different shapes need a size to be resized to")
        else:
            from wildfern.ssl.data import square

            pixels = np.stack([square(image, size) for image in pixels])
    if pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise ValueError(f"images are uint8[N, H, W, C], got {pixels.dtype}{list(pixels.shape)}")
    images = torch.from_numpy(np.ascontiguousarray(pixels)).to(device, non_blocking=True)
    images = images.permute(0, 3, 1, 2).float().div_(255)
    if size is None or images.shape[2] == images.shape[3] == size:
        return images
    shape, top, left = _placed(*images.shape[2:], size)
    images = F.interpolate(images, shape, mode=interpolation, align_corners=False, antialias=True)
    if interpolation == "bicubic":  # which overshoots at edges
        images = images.clamp_(0, 1)
    return images[:, :, top : top + size, left : left + size]


def resize_center_crop_masks(masks: Pixels, size: int | None, device: torch.device | str = "cpu") -> Tensor:
    """Masks uint8[N, H, W], or a list of uint8[Hi, Wi], as uint8[N, size, size]: the crop of their images, nearest pixel."""
    done = []
    for mask in masks:
        one = torch.from_numpy(np.ascontiguousarray(mask))[None, None]
        if size is not None and one.shape[2:] != (size, size):
            shape, top, left = _placed(*one.shape[2:], size)
            one = F.interpolate(one, shape, mode="nearest-exact")[:, :, top : top + size, left : left + size]
        done.append(one[0, 0])
    return torch.stack(done).to(device)


def _placed(height: int, width: int, size: int) -> tuple[tuple[int, int], int, int]:
    """Shape after resizing the shorter side to `size`, and the top left corner of the center crop in it."""
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    return shape, (shape[0] - size) // 2, (shape[1] - size) // 2


def normalized(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """float[N, C, H, W] less `mean`, divided by `std`, channel by channel. Raises ValueError for another number of channels."""
    if images.shape[1] != len(mean):
        raise ValueError(f"images have {images.shape[1]} channels, but {len(mean)} are normalized for this backbone")
    mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return (images - mean) / std
