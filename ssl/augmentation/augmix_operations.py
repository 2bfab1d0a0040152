"""The nine operations of AugMix (Hendrycks et al., ICLR 2020) that PixMix uses too, for a batch with one operation per image.

They follow the published code, which calls Pillow: a level between 0.1 and the severity (1 … 10), over 10, is the share of an
operation's maximal strength, and its sign the direction. Areas outside of the image are black.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from wildfern.ssl.augmentation.operation import on_device
from wildfern.ssl.losses.full_precision import without_autocast

OPERATIONS = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)


def autocontrast(images: Tensor) -> Tensor:
    """Each channel stretched to [0, 1]; constant channels are unchanged."""
    least, most = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    varies = most > least
    return torch.where(varies, (images - least) / torch.where(varies, most - least, 1), images)


def posterize(images: Tensor, level: Tensor) -> Tensor:
    """Keeps the highest 4 − ⌊4 · level / 10⌋ of 8 bits."""
    bits = 4 - (level.abs() * 4 / 10).to(torch.uint8)
    mask = torch.full_like(bits, 255) << (8 - bits)
    quantized = (images * 255).round().to(torch.uint8) & mask.view(-1, 1, 1, 1)
    return quantized.to(images.dtype) / 255


def solarize(images: Tensor, level: Tensor) -> Tensor:
    """Inverts 8-bit values of 256 − ⌊256 · level / 10⌋ and more."""
    threshold = 256 - (level.abs() * 256 / 10).floor()
    return torch.where(images >= ((threshold - 0.5) / 255).view(-1, 1, 1, 1), 1 - images, images)


def resample(images: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear: the output at (x, y) is the input at matrix · (x, y, 1), in pixels from the corner; matrix [M, 2, 3].

    Positions are computed in the precision of the images, also under autocast.
    """
    height, width = images.shape[-2:]
    y, x = (torch.arange(side, device=images.device, dtype=images.dtype) + 0.5 for side in (height, width))
    places = torch.stack(
        [x.expand(height, width), y[:, None].expand(height, width), torch.ones_like(x).expand(height, width)]
    )
    unit = on_device(torch.tensor([2 / width, 2 / height], dtype=images.dtype), images.device)
    with without_autocast(images):
        source = (matrix.to(images.dtype) @ places.flatten(1)).view(-1, 2, height, width).permute(0, 2, 3, 1)
        return torch.nn.functional.grid_sample(images, source * unit - 1, align_corners=False)


def affine(name: str, level: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """float64[M, 2, 3] for `resample`: rotation up to 30°, shear up to 0.3, translation up to a third of a side, at level ±10.

    Degrees and pixels are rounded towards zero. Rotations are about the center, shears about the corner.
    """
    matrix = np.tile(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), (len(level), 1, 1))
    if name == "rotate":
        angle = np.trunc(level * 30 / 10) * math.pi / 180
        cos, sin, x, y = np.cos(angle), np.sin(angle), width / 2, height / 2
        matrix[:, 0] = np.stack([cos, -sin, x - cos * x + sin * y], axis=1)
        matrix[:, 1] = np.stack([sin, cos, y - sin * x - cos * y], axis=1)
    elif name == "shear_x":
        matrix[:, 0, 1] = level * 0.3 / 10
    elif name == "shear_y":
        matrix[:, 1, 0] = level * 0.3 / 10
    elif name == "translate_x":
        matrix[:, 0, 2] = np.trunc(level * (width / 3) / 10)
    else:
        matrix[:, 1, 2] = np.trunc(level * (height / 3) / 10)
    return matrix


def augmented(images: Tensor, kind: NDArray[np.int64], level: NDArray[np.float64]) -> Tensor:
    """float[N, 3, H, W] in [0, 1], each image after operation OPERATIONS[kind] (−1: none) at its signed level."""
    out = images.clone()
    for number, name in enumerate(OPERATIONS):
        which = np.flatnonzero(kind == number)
        if not len(which):
            continue
        rows = on_device(torch.from_numpy(which), images.device)
        chosen = images[rows]
        if name == "autocontrast":
            changed = autocontrast(chosen)
        elif name == "equalize":
            changed = F.equalize(chosen)
        elif name in ("posterize", "solarize"):
            change = posterize if name == "posterize" else solarize
            changed = change(chosen, on_device(torch.from_numpy(level[which]), images.device))
        else:
            matrix = affine(name, level[which], *images.shape[-2:])
            changed = resample(chosen, on_device(torch.from_numpy(matrix), images.device))
        out[rows] = changed.to(out.dtype)
    return out
