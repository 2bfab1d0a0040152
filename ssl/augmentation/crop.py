"""Random resized crop with flip: one pair of small matrix products for every view of a picture.

Cropping, anti-aliased bilinear resizing and flipping are linear and separable, so a view is `rows @ picture @ columns.T` with
two banded matrices whose weights are those of Pillow's and torchvision's triangle filter (`antialias=True`).
"""

import numpy as np
import torch
from torch import Tensor

from wildfern.ssl.augmentation.operation import GeometricOperation
from wildfern.ssl.augmentation.table import ViewTable


def resize_weights(start: Tensor, length: Tensor, pixels: int, size: int, flip: Tensor | None = None) -> Tensor:
    """float32[M, size, pixels]: weights that resize pixels [start, start + length) of a line to `size`, each row summing to 1.

    Triangle filter of half-width max(1, length/size) around the center of each output pixel; pixels outside the crop weigh
    nothing. `start`, `length` are float[M]; rows are reversed where `flip` (bool[M]) says so.
    """
    scale = (length / size)[:, None, None]
    out = torch.arange(size, device=start.device, dtype=torch.float32)[None, :, None].expand(len(start), -1, -1)
    if flip is not None:
        out = torch.where(flip[:, None, None], size - 1 - out, out)
    pixel = torch.arange(pixels, device=start.device, dtype=torch.float32)[None, None, :] - start[:, None, None]
    weights = (1 - (pixel + 0.5 - (out + 0.5) * scale).abs() / scale.clamp(min=1.0)).clamp_(min=0.0)
    weights = weights * ((pixel >= 0) & (pixel < length[:, None, None]))
    return weights / weights.sum(dim=-1, keepdim=True)


def crop_views(pixels: Tensor, boxes: Tensor, flip: Tensor, size: int) -> Tensor:
    """All views of a batch at once: float[n, H, W, 3], boxes [V, n, 4] (top, left, height, width), flip bool[V, n].

    Returns float32[V * n, 3, size, size], view-major, in the range of the input.
    """
    views, n = flip.shape
    _, height, width, channels = pixels.shape
    top, left, box_height, box_width = boxes.float().flatten(0, 1).unbind(-1)
    rows = resize_weights(top, box_height, height, size)
    columns = resize_weights(left, box_width, width, size, flip.flatten())
    rows = rows.view(views, n, size, height).transpose(0, 1).reshape(n, views * size, height)
    stripes = torch.bmm(rows, pixels.reshape(n, height, width * channels))
    stripes = stripes.view(n, views, size, width, channels).permute(1, 0, 4, 2, 3)
    stripes = stripes.reshape(views * n, channels * size, width)
    return torch.bmm(stripes, columns.transpose(1, 2)).view(views * n, channels, size, size)


class RandomResizedCropFlip(GeometricOperation):
    """torchvision's RandomResizedCrop (anti-aliased, bilinear, central fallback) and RandomHorizontalFlip as a kornia module."""

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
    ) -> None:
        super().__init__(size=size, crop_scale=scale, crop_ratio=ratio, flip=flip)

    def parameters_from(self, table: ViewTable, height: int, width: int) -> dict[str, np.ndarray]:
        pictures = table.crop.shape[1]
        boxes = table.boxes(np.full(pictures, height), np.full(pictures, width))
        return {"box": boxes.reshape(-1, 4), "flip": table.flat("flip")}

    def compute_transformation(self, input: Tensor, params: dict, flags: dict) -> Tensor:
        """float[n, 3, 3]: source to view coordinates in pixels, pixel centers at integers."""
        top, left, height, width = params["box"].to(input).unbind(-1)
        size = self.settings.size
        x, y = size / width, size / height
        direction = torch.where(params["flip"].to(input.device), -1.0, 1.0)
        matrix = torch.zeros(len(x), 3, 3, device=input.device, dtype=input.dtype)
        matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 2, 2] = direction * x, y, 1
        shift_x = (0.5 - left) * x - 0.5
        matrix[:, 0, 2] = torch.where(direction < 0, size - 1 - shift_x, shift_x)
        matrix[:, 1, 2] = (0.5 - top) * y - 0.5
        return matrix

    def apply_transform(self, input: Tensor, params: dict, flags: dict, transform: Tensor | None = None) -> Tensor:
        box, flip = params["box"].to(input.device)[None], params["flip"].to(input.device)[None]
        return crop_views(input.permute(0, 2, 3, 1).float(), box, flip, self.settings.size).to(input.dtype)
