"""A frozen teacher: a trained network whose outputs a method uses, and which training does not change."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wildfern.ssl.models.backbone import Backbone, Tokens
from wildfern.ssl.models.pretrained_weights import tensors_sha256


class FrozenTeacher:
    """A backbone without gradients in eval mode: batch normalization uses its running statistics, dropout is off.

    Calling it returns vectors float[N, width]. It takes views as the student does, and converts them to the normalization that
    the backbone was trained with (`Backbone.mean` and `std`). Not an `nn.Module`, so that engines neither shard, synchronize nor
    optimize it; checkpoints hold only `sha256`, which identifies its weights.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.module = _Normalized(backbone.requires_grad_(False)).eval()
        self.sha256 = backbone.weights_sha256 or tensors_sha256(backbone)

    @property
    def backbone(self) -> Backbone:
        """The network, for images with its own normalization."""
        return self.module.backbone

    @torch.no_grad()
    def __call__(self, views: Tensor) -> Tensor:
        return self.module(views)

    @torch.no_grad()
    def tokens(self, views: Tensor) -> Tokens:
        """As `Backbone.tokens`."""
        return self.backbone.tokens(self.module.converted(views))

    def views_are_normalized_with(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Convert views from this normalization. Does nothing if one of both is not known for each channel of the images."""
        backbone, module = self.backbone, self.module
        if {len(mean), len(std), len(backbone.mean), len(backbone.std)} != {backbone.in_chans}:
            return
        given, own = (
            [torch.tensor(x).view(-1, 1, 1) for x in (m, s)] for m, s in ((mean, std), (backbone.mean, backbone.std))
        )
        module.scale.copy_(given[1] / own[1])
        module.shift.copy_((given[0] - own[0]) / own[1])


class _Normalized(nn.Module):
    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("scale", torch.ones(backbone.in_chans, 1, 1))
        self.register_buffer("shift", torch.zeros(backbone.in_chans, 1, 1))

    def converted(self, views: Tensor) -> Tensor:
        return views * self.scale + self.shift

    def forward(self, views: Tensor) -> Tensor:
        return self.backbone(self.converted(views))
