"""Activation checkpointing: the blocks of a network are computed again in the backward pass; their activations are not kept.

Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost". The gradient is the same.
"""

from typing import Any

import torch
from torch import nn


def checkpoint_activations(network: nn.Module, name: str) -> None:
    """Keep only the inputs of the blocks of timm's network `name`; backward passes compute each block once more.

    Random numbers are those of the first pass. Running statistics of normalization follow the first pass only.
    Raises ValueError for a network for which timm has no checkpointing, or that is not timm's.
    """
    switch = getattr(network, "set_grad_checkpointing", None)
    try:
        supported = switch is not None
        if switch is not None:
            switch(True)
    except AssertionError:  # timm's models without it
        supported = False
    if not supported:
        raise ValueError(
            f"{name} cannot compute its activations again: choose a timm model with set_grad_checkpointing, such as a ResNet, "
            "ConvNeXt or vision transformer, or set model.activation_checkpointing to false"
        )
    for module in network.modules():
        if any(key.startswith("running_") for key, _ in module.named_buffers(recurse=False)):
            module.register_forward_pre_hook(_keep_statistics)
            module.register_forward_hook(_restore_statistics, always_call=True)  # recomputation may end within a module


def _keep_statistics(module: Any, _: Any) -> None:
    # Compiled graphs update statistics outside of what they compute again.
    if not torch.compiler.is_compiling() and _in_backward_pass():
        module._kept_statistics = [(buffer, buffer.clone()) for buffer in module.buffers(recurse=False)]


def _restore_statistics(module: nn.Module, *_: Any) -> None:
    if not torch.compiler.is_compiling():
        for buffer, before in module.__dict__.pop("_kept_statistics", []):
            buffer.copy_(before)


def _in_backward_pass() -> bool:
    return torch._C._current_graph_task_id() != -1  # as torch.utils.checkpoint asks; -1 outside of backward passes
