"""Attention of a vision transformer's class token to the patches, in its last block (Caron et al., 2021, figure 1)."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn

T = TypeVar("T")
PARTS = ("q_norm", "k_norm")  # whose outputs are the queries and keys, also where they do nothing


def with_class_attention(network: nn.Module, run: Callable[[], T]) -> tuple[T, Tensor | None]:
    """What `run` returns, and from the forward pass of n images in it the attention float32[n, T] to T patches.

    That is the softmax over all tokens of which the block's output is made, averaged over the heads: rows sum to at most 1. It is
    None for other networks than timm's `VisionTransformer` with a class token and its plain attention in the last block.
    """
    attention = _last_attention(network)
    if attention is None:
        return run(), None
    found: dict[str, Tensor] = {}
    handles = [getattr(attention, part).register_forward_hook(partial(_keep, found, part)) for part in PARTS]
    try:
        result = run()
    finally:
        for handle in handles:
            handle.remove()
    queries, keys = (found[part].detach().float() for part in PARTS)  # [n, heads, tokens, D]
    weights = (attention.scale * queries[:, :, :1] @ keys.transpose(2, 3)).softmax(3)
    return result, weights[:, :, 0, network.num_prefix_tokens :].mean(1)  # type: ignore[misc]


def _keep(found: dict[str, Tensor], part: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
    found[part] = output


def _last_attention(network: nn.Module) -> Attention | None:
    if not isinstance(network, VisionTransformer) or network.cls_token is None:
        return None
    attention = getattr(network.blocks[-1], "attn", None)
    return attention if type(attention) is Attention else None  # others add a bias or subtract a second softmax
