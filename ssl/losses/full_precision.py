"""Loss arithmetic stays in float32 (or float64) whatever the model around it computes in."""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it came so."""
    return x if x.dtype is torch.float64 else x.float()


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which matrix products of float32 stay float32 on the tensor's device."""
    return torch.autocast(x.device.type, enabled=False)
