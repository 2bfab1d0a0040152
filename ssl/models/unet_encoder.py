"""The contracting path of a U-Net (Ronneberger et al., 2015) as a backbone, whose maps a decoder completes to a segmenter."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


def convolutions(inputs: int, outputs: int, count: int = 2) -> nn.Sequential:
    """`count` 3×3 convolutions, each with batch normalization and ReLU: float[N, inputs, H, W] -> float[N, outputs, H, W]."""
    layers: list[nn.Module] = []
    for number in range(count):
        convolution = nn.Conv2d(outputs if number else inputs, outputs, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_in", nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNetEncoder(nn.Module):
    """Two 3×3 convolutions a level, with batch normalization as in FreeCOS, and 2×2 max pooling between the levels.

    float[N, in_chans, S, S] -> float[N, widths[-1]], the mean of the deepest map. `widths`: channels of each level, the first at
    full resolution; FreeCOS has 64, 128, 256, 512, 1024.
    """

    def __init__(self, *, in_chans: int = 3, widths: Sequence[int] = (64, 128, 256, 512, 1024)) -> None:
        super().__init__()
        if len(widths) < 2 or any(type(width) is not int or width < 1 for width in widths):
            raise ValueError(f"widths are at least two whole numbers of at least 1, got {list(widths)}")
        self.levels = nn.ModuleList(convolutions(i, o) for i, o in pairwise([in_chans, *widths]))
        self.pool = nn.MaxPool2d(2)

    def forward_intermediates(self, x: Tensor, **_: Any) -> list[Tensor]:
        """The map of each level, from full resolution down; the options of timm's method of this name have no effect."""
        maps = []
        for number, level in enumerate(self.levels):
            x = level(self.pool(x) if number else x)
            maps.append(x)
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        """The deepest map, float[N, widths[-1], s, s]."""
        return self.forward_intermediates(x)[-1]

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(self.forward_features(x), dim=(2, 3))
