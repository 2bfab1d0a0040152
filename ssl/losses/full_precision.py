"""Loss arithmetic stays in float32 (or float64) whatever the model around it computes in."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it came so."""
    return x if x.dtype is torch.float64 else x.float()


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A context in which matrix products of float32 stay float32 on the tensor's device."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
