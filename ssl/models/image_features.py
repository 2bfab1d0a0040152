"""Features of images without weights, as baselines of an evaluation: what a network must beat to have learned something."""

from typing import ClassVar, NoReturn

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F


class ImageFeatures(nn.Module):
    """float[N, C, S, S] -> float[N, D], a function of the image alone. `size`, `mean`, `std` are of its images."""

    size: ClassVar[int] = 32
    mean: ClassVar[tuple[float, ...]] = IMAGENET_DEFAULT_MEAN
    std: ClassVar[tuple[float, ...]] = IMAGENET_DEFAULT_STD
    interpolation: ClassVar[str] = "bilinear"

    # Properties: an evaluation asks whether a backbone has these methods, and is told why not before it reads images.
    @property
    def tokens(self) -> NoReturn:
        raise ValueError(f"{type(self).__name__} has no tokens: choose a network")

    @property
    def maps(self) -> NoReturn:
        raise ValueError(f"{type(self).__name__} has no feature maps: choose a network")


class Pixels(ImageFeatures):
    """The normalized image itself, reduced to 16 × 16 pixels by the mean of areas: float[N, C, S, S] -> float[N, C · 256]."""

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, 16).flatten(1)


class ColorHistogram(ImageFeatures):
    """Joint histogram of 4 × 4 × 4 colors (Swain & Ballard, 1991): float[N, 3, S, S] in [0, 1] -> float[N, 64].

    Features are the square roots of the shares of pixels, so that Euclidean distance is Hellinger's and cosine similarity is
    Bhattacharyya's coefficient. Bin 16 r + 4 g + b has red from r / 4 to (r + 1) / 4.
    """

    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def forward(self, images: Tensor) -> Tensor:
        red, green, blue = (images * 4).clamp(0, 3).long().flatten(2).unbind(1)
        colors = 16 * red + 4 * green + blue
        counts = images.new_zeros(len(images), 64).scatter_add_(1, colors, torch.ones_like(colors, dtype=images.dtype))
        return (counts / colors.shape[1]).sqrt()


IMAGE_FEATURES: dict[str, type[ImageFeatures]] = {"pixels": Pixels, "color_histogram": ColorHistogram}
