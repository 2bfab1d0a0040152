"""How deep in a network each parameter is, for learning rates that fall towards the input (layer-wise decay)."""

import re
from typing import Any

from timm.models import group_parameters
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from wildfern.ssl.models.backbone import Backbone


def layer_depths(backbone: nn.Module) -> tuple[dict[str, int], int]:
    """Depth by parameter name, as in `backbone.named_parameters()`, and the depth of a head, for a `Backbone` or a timm model.

    Of a vision transformer with L blocks: 0 for the embeddings of patches and positions and for class and register tokens,
    i for block i = 1 to L, L + 1 for the last normalization and a head (Bao et al., 2022; He et al., 2022). Other timm models
    number their own stages, and a head comes after the last. Raises ValueError for a network of unknown order.
    """
    network = backbone.network if isinstance(backbone, Backbone) else backbone
    prefix = "network." if isinstance(backbone, Backbone) else ""
    matcher: Any = getattr(network, "group_matcher", None)
    if isinstance(network, VisionTransformer):
        head = len(network.blocks) + 1
        depths = {name: _depth(name, head) for name, _ in network.named_parameters()}
    elif matcher is not None:
        depths = group_parameters(network, matcher(coarse=False), reverse=True)
        head = max(depths.values()) + 1
    else:
        name = backbone.name if isinstance(backbone, Backbone) else type(network).__name__
        raise ValueError(
            f"layer decay needs a timm model, such as vit_small_patch16_224; {name} has no order of layers"
        )
    return {prefix + name: depth for name, depth in depths.items()}, head


def layer_factors(backbone: nn.Module, decay: float) -> dict[str, float]:
    """Factor of the learning rate by parameter name: `decay` to the number of layers from there to the head (1 for its own)."""
    depths, head = layer_depths(backbone)
    return {name: decay ** (head - depth) for name, depth in depths.items()}


def _depth(name: str, head: int) -> int:
    if block := re.match(r"blocks\.(\d+)\.", name):
        return int(block[1]) + 1
    return head if re.match("norm\\.|fc_norm\\.|attn_pool\\.|head", name) else 0
