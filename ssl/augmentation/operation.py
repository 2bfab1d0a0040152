"""View operations are kornia augmentation modules whose parameters can come from a `ViewTable`.

Inside `Views` the parameters of the whole batch are drawn once and handed over. In somebody else's
`kornia.augmentation.AugmentationSequential` a module draws its own, with a seed taken from torch's generator.
"""

from typing import Any

import numpy as np
import torch
from kornia.augmentation import GeometricAugmentationBase2D, IntensityAugmentationBase2D
from torch import Tensor

from wildfern.ssl.augmentation.table import ViewSettings, ViewTable, draw_table

UNCHANGED = dict(
    crop_scale=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip=0.0,
    jitter=0.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    gray=0.0,
    blur=0.0,
    blur_sigma=(0.1, 2.0),
    solarize=0.0,
)


class _DrawsFromTable:
    """Parameters of a kornia module made from a view table (mixed into kornia's two base classes)."""

    settings: ViewSettings

    def parameters_from(self, table: ViewTable, height: int, width: int) -> dict[str, np.ndarray]:
        raise TypeError(f"{type(self).__name__} must say which parameters it takes from the table")

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """kornia's hook for a module used alone: one view of every picture, seeded by torch's generator."""
        seed = int(torch.randint(2**62, ()))
        table = draw_table([self.settings], seed, 0, np.arange(batch_shape[0]), 0)
        return to_tensors(self.parameters_from(table, batch_shape[-2], batch_shape[-1]), torch.device("cpu"))


class IntensityOperation(_DrawsFromTable, IntensityAugmentationBase2D):
    """Changes colors, moves nothing."""

    def __init__(self, **changed: Any) -> None:
        super().__init__(p=1.0)
        self.settings = ViewSettings(**{"size": 4, **UNCHANGED, **changed})


class GeometricOperation(_DrawsFromTable, GeometricAugmentationBase2D):
    """Moves pixels."""

    def __init__(self, **changed: Any) -> None:
        super().__init__(p=1.0)
        self.settings = ViewSettings(**{**UNCHANGED, **changed})


def to_tensors(parameters: dict[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Small host arrays to the device: floats as float32, the rest as they are, without waiting."""
    tensors = {}
    for name, value in parameters.items():
        tensor = torch.from_numpy(np.ascontiguousarray(value, np.float32 if value.dtype == np.float64 else None))
        tensors[name] = (
            tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
        )
    return tensors
