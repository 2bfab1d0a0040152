"""The small AlexNet of the alignment-and-uniformity and CACR experiments on CIFAR and STL-10."""

import torch
from torch import Tensor, nn


class SmallAlexNet(nn.Module):
    """Five convolutions and two hidden layers with batch normalization (Wang & Isola, 2020; Zheng et al., CACR).

    float[N, 3, S, S] -> float[N, 4096], S = `image_size` (32 for CIFAR, 64 for STL-10); the method's head projects
    to the sphere.
    """

    def __init__(self, *, image_size: int = 32) -> None:
        super().__init__()
        self.image_size = side = image_size
        for _ in range(3):
            side = (side - 3) // 2 + 1
        if side < 1:
            raise ValueError(f"small_alexnet needs images of at least 15 px, got {image_size}")

        def convolution(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

        def hidden(inputs: int) -> list[nn.Module]:
            return [nn.Linear(inputs, 4096, bias=False), nn.BatchNorm1d(4096), nn.ReLU()]

        self.convolutions = nn.Sequential(
            *convolution(3, 96),
            nn.MaxPool2d(3, 2),
            *convolution(96, 192),
            nn.MaxPool2d(3, 2),
            *convolution(192, 384),
            *convolution(384, 384),
            *convolution(384, 192),
            nn.MaxPool2d(3, 2),
        )
        self.hidden = nn.Sequential(*hidden(192 * side * side), *hidden(4096))

    def forward_features(self, images: Tensor) -> Tensor:
        """float[N, 192, s, s]: the feature map of the last convolution, after pooling."""
        return self.convolutions(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.hidden(torch.flatten(self.forward_features(images), 1))
