"""The last blocks or stages of a frozen backbone: class tokens of a vision transformer, averaged maps of other networks."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from wildfern.ssl.evaluation.features import method_of
from wildfern.ssl.evaluation.transformed import TransformedBackbone


class LastBlocks(nn.Module):
    """Features of the last `layers` blocks, concatenated, the last block first to last: float[N, C, S, S] -> float[N, D].

    Of a vision transformer with a class token: the class token of each block after the network's last norm (DINO's linear
    evaluation uses 4; Caron et al., 2021, appendix F). Of other networks: the average of the feature map of each stage.
    Raises ValueError for a network with fewer blocks or stages, or without feature maps.
    """

    def __init__(self, backbone: nn.Module, layers: int) -> None:
        super().__init__()
        self.backbone, self.layers = backbone, layers
        if has_class_tokens(backbone):
            check_class_tokens(backbone, layers)

    def forward(self, x: Tensor) -> Tensor:
        if has_class_tokens(self.backbone):
            return torch.cat([token for _, token in block_tokens(self.backbone, x, self.layers)], 1)
        maps = method_of(self.backbone, "maps")(x)
        if len(maps) < self.layers:
            raise ValueError(f"layers: {self.layers} stages are wanted, and this network has {len(maps)}")
        return torch.cat([one.mean((2, 3)) for one in maps[-self.layers :]], 1)


def check_layers(layers: int | None) -> None:
    """Raise ValueError for an impossible argument `layers` of an evaluator."""
    if layers is not None and layers < 1:
        raise ValueError(f"layers is a number of blocks or stages of at least 1, got {layers}")


def layers_words(layers: int | None) -> str:
    """What to add to the description of a protocol."""
    return "" if layers is None else f"; features of the last {layers} blocks or stages"


def block_tokens(backbone: nn.Module, images: Tensor, layers: int) -> list[tuple[Tensor, Tensor]]:
    """Patch tokens float[n, T, D] and class token float[n, D] of each of the last blocks, after the network's last norm.

    Raises ValueError for a network that is not a timm vision transformer with a class token and `layers` blocks.
    """
    if isinstance(backbone, TransformedBackbone):
        return block_tokens(backbone.backbone, backbone.transform(images), layers)
    check_class_tokens(backbone, layers)
    found = _network(backbone).forward_intermediates(
        images, indices=layers, norm=True, output_fmt="NLC", intermediates_only=True, return_prefix_tokens=True
    )
    return [(patches, prefix[:, 0]) for patches, prefix in found]


def check_class_tokens(backbone: nn.Module, layers: int) -> None:
    """Raise ValueError unless the network has a class token and `layers` blocks."""
    if not has_class_tokens(backbone):
        raise ValueError(
            "layers above 1 and average_patches need a vision transformer of timm with a class token: set layers: 1"
        )
    if layers > (blocks := len(_network(backbone).blocks)):
        raise ValueError(f"the class tokens of {layers} blocks are wanted, and this network has {blocks}: set layers")


def has_class_tokens(backbone: nn.Module) -> bool:
    """Whether the network's blocks have a class token that can be read."""
    network = _network(backbone)
    if getattr(network, "cls_token", None) is None or not hasattr(network, "blocks"):
        return False
    return "return_prefix_tokens" in inspect.signature(network.forward_intermediates).parameters


def _network(backbone: nn.Module) -> Any:
    while isinstance(backbone, TransformedBackbone):
        backbone = backbone.backbone
    return getattr(backbone, "network", backbone)
