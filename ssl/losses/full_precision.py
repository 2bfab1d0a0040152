"""Loss arithmetic in float32 (or float64) whatever the precision of the model."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Return the tensor in float32, or unchanged if it is float64."""
    return x if x.dtype is torch.float64 else x.float()


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A context without autocast on the tensor's device, in which float32 matrix products stay float32."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
