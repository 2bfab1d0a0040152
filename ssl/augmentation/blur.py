"""Gaussian blur as two banded matrix products, with one sigma per image (0: no blur)."""

from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from wildfern.ssl.augmentation.operation import IntensityOperation, on_device
from wildfern.ssl.augmentation.table import AugmentationParameters
from wildfern.ssl.losses.full_precision import without_autocast


def kernel_size(side: int) -> int:
    """The published rule: the odd number nearest to a tenth of the side, at least 3 (SimCLR, appendix A)."""
    return max(3, 2 * (side // 20) + 1)


@lru_cache(maxsize=16)
def _reflected_shifts(side: int, radius: int, device: torch.device) -> Tensor:
    """float32[2·radius + 1, side, side]: row i of matrix d picks pixel i + d − radius, reflected at the border."""
    place = torch.arange(side)[None, :] + torch.arange(-radius, radius + 1)[:, None]
    place = place.abs()
    place = torch.where(place >= side, 2 * (side - 1) - place, place)
    shifts = torch.nn.functional.one_hot(place, side).float()
    return shifts.to(device)  # a blocking copy, once: the cached tensor is read on every stream


def blur_matrix(sigma: Tensor, side: int) -> Tensor:
    """float32[M, side, side]: blurs lines of `side` pixels, reflecting at the ends, with sigma float[M] in pixels.

    Computed in float32, also under autocast.
    """
    radius = min(kernel_size(side) // 2, side - 1)
    distance = torch.arange(-radius, radius + 1, device=sigma.device, dtype=torch.float32)
    weights = (-0.5 * (distance / sigma.float().clamp(min=1e-3)[:, None]).square()).exp()
    weights = weights / weights.sum(dim=1, keepdim=True)
    shifts = _reflected_shifts(side, radius, sigma.device)
    with without_autocast(sigma):
        return (weights @ shifts.flatten(1)).view(-1, side, side)


class GaussianBlur(IntensityOperation):
    """torchvision's GaussianBlur (kernel a tenth of the side) with probability `p`, sigma uniform, as a kornia module.

    Computed in float32, also under autocast. kornia's own `p` stays 1. Raises ValueError for settings out of range.
    """

    named: ClassVar = {"blur_sigma": "sigma", "blur": "p"}

    def __init__(
        self,
        sigma: tuple[float, float] = (0.1, 2.0),
        p: float = 0.5,
        *,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        super().__init__(same_on_batch=same_on_batch, keepdim=keepdim, blur_sigma=sigma, blur=p)

    def parameters_from(self, table: AugmentationParameters, height: int, width: int) -> dict[str, np.ndarray]:
        return {"sigma": table.flat("sigma")}

    def apply_transform(self, input: Tensor, params: dict, flags: dict, transform: Tensor | None = None) -> Tensor:
        sigma = on_device(params["sigma"], input.device)
        count, channels, height, width = input.shape
        rows, columns = blur_matrix(sigma, height), blur_matrix(sigma, width)
        with without_autocast(input):
            lines = torch.bmm(input.float().reshape(count, channels * height, width), columns.transpose(1, 2))
            return torch.matmul(rows[:, None], lines.view(count, channels, height, width)).to(input.dtype)
