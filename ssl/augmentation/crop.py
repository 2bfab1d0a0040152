"""Random resized crop with flip: one pair of small matrix products for every view of an image.

Cropping, anti-aliased resizing and flipping are linear and separable, so a view is `rows @ image @ columns.T` with two banded
matrices whose weights are those of Pillow's and torchvision's filters (`antialias=True`).
"""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from wildfern.ssl.augmentation.crop_geometry import nearest_pixels
from wildfern.ssl.augmentation.operation import GeometricOperation, on_device
from wildfern.ssl.augmentation.table import AugmentationParameters
from wildfern.ssl.losses.full_precision import without_autocast


def resize_weights(
    start: Tensor, length: Tensor, pixels: int, size: int, flip: Tensor | None = None, interpolation: str = "bilinear"
) -> Tensor:
    """float32[M, size, pixels]: weights that resize pixels [start, start + length) of a line to `size`, each row summing to 1.

    A filter around the center of each output pixel, in units of max(1, length/size) pixels: a triangle of half-width 1, or
    (`interpolation` "bicubic") Keys' cubic of half-width 2 with a = -1/2. Pixels outside the crop have weight 0. `start` and
    `length` are float[M]; rows are reversed where `flip` (bool[M]) is true.
    """
    scale = (length / size)[:, None, None]
    out = torch.arange(size, device=start.device, dtype=torch.float32)[None, :, None].expand(len(start), -1, -1)
    if flip is not None:
        out = torch.where(flip[:, None, None], size - 1 - out, out)
    pixel = torch.arange(pixels, device=start.device, dtype=torch.float32)[None, None, :] - start[:, None, None]
    distance = (pixel + 0.5 - (out + 0.5) * scale).abs() / scale.clamp(min=1.0)
    weights = _cubic(distance) if interpolation == "bicubic" else (1 - distance).clamp_(min=0.0)
    weights = weights * ((pixel >= 0) & (pixel < length[:, None, None]))
    return weights / weights.sum(dim=-1, keepdim=True)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' kernel with a = -1/2 (1981, eq. 15), as Pillow's and, anti-aliased, torch's bicubic filter."""
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


def crop_views(pixels: Tensor, boxes: Tensor, flip: Tensor, size: int, interpolation: str = "bilinear") -> Tensor:
    """All views of a batch at once: float[n, H, W, C] in [0, 1], boxes [V, n, 4] (top, left, height, width), flip bool[V, n].

    Returns float32[V * n, C, size, size], view-major. The overshoot of a bicubic filter is clipped to [0, 1], as in uint8 images.
    Computed in float32, also under autocast.
    """
    with without_autocast(pixels):
        return _crop_views(pixels, boxes, flip, size, interpolation)


def _crop_views(pixels: Tensor, boxes: Tensor, flip: Tensor, size: int, interpolation: str) -> Tensor:
    views, n = flip.shape
    _, height, width, channels = pixels.shape
    top, left, box_height, box_width = boxes.float().flatten(0, 1).unbind(-1)
    rows = resize_weights(top, box_height, height, size, None, interpolation)
    columns = resize_weights(left, box_width, width, size, flip.flatten(), interpolation)
    rows = rows.view(views, n, size, height).transpose(0, 1).reshape(n, views * size, height)
    stripes = torch.bmm(rows, pixels.reshape(n, height, width * channels))
    stripes = stripes.view(n, views, size, width, channels).permute(1, 0, 4, 2, 3)
    stripes = stripes.reshape(views * n, channels * size, width)
    out = torch.bmm(stripes, columns.transpose(1, 2)).view(views * n, channels, size, size)
    return out.clamp_(0, 1) if interpolation == "bicubic" else out


class RandomResizedCropFlip(GeometricOperation):
    """torchvision's RandomResizedCrop (anti-aliased, central fallback) and RandomHorizontalFlip as a kornia module.

    Images are in [0, 1]; masks are resized by nearest neighbor. `interpolation` is "bilinear" or "bicubic". kornia's own `p`
    stays 1. Raises ValueError for settings out of range.
    """

    named: ClassVar = {"crop_scale": "scale", "crop_ratio": "ratio"}

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        interpolation: str = "bilinear",
        **kornia: Any,
    ) -> None:
        super().__init__(
            size=size, crop_scale=scale, crop_ratio=ratio, flip=flip, interpolation=interpolation, **kornia
        )

    def parameters_from(self, table: AugmentationParameters, height: int, width: int) -> dict[str, np.ndarray]:
        images = table.crop.shape[1]
        boxes = table.boxes(np.full(images, height), np.full(images, width))
        return {"box": boxes.reshape(-1, 4), "flip": table.flat("flip")}

    def compute_transformation(self, input: Tensor, params: dict, flags: dict) -> Tensor:
        """float[n, 3, 3]: source to view coordinates in pixels, pixel centers at integers."""
        top, left, height, width = params["box"].to(input).unbind(-1)
        size = self.settings.size
        x, y = size / width, size / height
        direction = torch.where(on_device(params["flip"], input.device), -1.0, 1.0)
        matrix = torch.zeros(len(x), 3, 3, device=input.device, dtype=input.dtype)
        matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 2, 2] = direction * x, y, 1
        shift_x = (0.5 - left) * x - 0.5
        matrix[:, 0, 2] = torch.where(direction < 0, size - 1 - shift_x, shift_x)
        matrix[:, 1, 2] = (0.5 - top) * y - 0.5
        return matrix

    def apply_transform(self, input: Tensor, params: dict, flags: dict, transform: Tensor | None = None) -> Tensor:
        box, flip = on_device(params["box"], input.device)[None], on_device(params["flip"], input.device)[None]
        images, settings = input.permute(0, 2, 3, 1).float(), self.settings
        return crop_views(images, box, flip, settings.size, settings.interpolation).to(input.dtype)

    def apply_transform_mask(self, input: Tensor, params: dict, flags: dict, transform: Tensor | None = None) -> Tensor:
        """Masks [n, C, H, W]: nearest neighbor, so that no class between two others appears."""
        box, flip = on_device(params["box"], input.device), on_device(params["flip"], input.device)
        rows, columns = nearest_pixels(box, flip, self.settings.size)
        which = torch.arange(len(input), device=input.device)[:, None, None]
        return input.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
