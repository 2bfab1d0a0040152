"""View operations: kornia augmentation modules whose parameters can come from `AugmentationParameters`.

Inside `Views` the parameters of the whole batch are drawn once and passed to the modules. In a
`kornia.augmentation.AugmentationSequential` a module draws its own, with a seed from torch's generator.
"""

from collections.abc import Mapping
from dataclasses import fields
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from kornia.augmentation import GeometricAugmentationBase2D, IntensityAugmentationBase2D
from numpy.typing import NDArray
from torch import Tensor

from wildfern.ssl.augmentation.table import AugmentationParameters, ViewSettings, draw_table

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


_SETTINGS = [field.name for field in fields(ViewSettings)]


def check_probabilities(**probabilities: Any) -> None:
    """Raise a ValueError that names the first of these that is not a number in [0, 1]; NaN and text are not."""
    for name, value in probabilities.items():
        if not isinstance(value, Real) or not 0 <= value <= 1:
            raise ValueError(f"{name} must be a probability in [0, 1], got {value!r}")


def positions_for(images: int, same_on_batch: bool) -> NDArray[np.int64]:
    """int64[images]: the positions for which a module used alone draws; all 0 if `same_on_batch`."""
    return np.zeros(images, np.int64) if same_on_batch else np.arange(images)


class _DrawsFromTable:
    """Parameters of a kornia module from a view table (a mixin for kornia's two base classes).

    An image to which an operation is not applied has identity parameters, so kornia's own `p` is 1. The given probability is in
    `settings` and shown by `repr`.
    """

    settings: ViewSettings
    named: ClassVar[Mapping[str, str]] = {}  # names of settings -> names of constructor arguments, if different
    _given: tuple[str, ...]  # the settings that the constructor sets

    def __repr__(self) -> str:
        given = {self.named.get(name, name): getattr(self.settings, name) for name in self._given}
        shown = {**given, "same_on_batch": self.same_on_batch, "keepdim": self.keepdim}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def _set(self, given: Mapping[str, Any]) -> None:
        """Store the settings; raises one ValueError with all faults, in the names of the constructor's arguments."""
        wrong = []
        for name, value in given.items():
            argument = self.named.get(name, name)
            if name not in _SETTINGS:
                raise TypeError(f"{type(self).__name__} has no argument {name!r}")
            try:
                ViewSettings(**{"size": 4, **UNCHANGED, name: value})
            except (TypeError, ValueError) as error:
                reason = str(error)
                about = argument if reason.startswith(name) else f"{argument}={value!r}: "
                wrong.append(about + reason.removeprefix(name))
        if wrong:
            raise ValueError("; ".join(wrong))
        self.settings, self._given = ViewSettings(**{"size": 4, **UNCHANGED, **given}), tuple(given)

    def parameters_from(self, table: AugmentationParameters, height: int, width: int) -> dict[str, np.ndarray]:
        raise TypeError(f"{type(self).__name__} must implement parameters_from")

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """kornia's hook for a module used alone: one view of each image, seeded by torch's generator."""
        seed = int(torch.randint(2**62, ()))
        positions = positions_for(batch_shape[0], self.same_on_batch)
        table = draw_table([self.settings], seed, 0, positions, 0)
        return to_tensors(self.parameters_from(table, batch_shape[-2], batch_shape[-1]), torch.device("cpu"))


class IntensityOperation(_DrawsFromTable, IntensityAugmentationBase2D):
    """Base class of operations that change colors and do not move pixels.

    `given` are settings of a view; `same_on_batch` and `keepdim` are kornia's. Raises ValueError for impossible settings.
    """

    def __init__(self, *, same_on_batch: bool = False, keepdim: bool = False, **given: Any) -> None:
        super().__init__(p=1.0, same_on_batch=same_on_batch, keepdim=keepdim)
        self._set(given)


class GeometricOperation(_DrawsFromTable, GeometricAugmentationBase2D):
    """Base class of operations that move pixels; `size` is that of the views, for the rest see `IntensityOperation`."""

    def __init__(self, *, size: int, same_on_batch: bool = False, keepdim: bool = False, **given: Any) -> None:
        super().__init__(p=1.0, same_on_batch=same_on_batch, keepdim=keepdim)
        self._set({"size": size, **given})

    def inverse_transform(
        self, input: Tensor, flags: dict, transform: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        raise NotImplementedError(
            f"{type(self).__name__} has no inverse for images and masks, since a crop leaves out a part of them; boxes and "
            "keypoints have one, and kornia's RandomResizedCrop has one for images"
        )


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; copied from the host to a GPU through pinned memory, so that the host does not wait."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_tensors(parameters: dict[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Small host arrays as tensors on the device: floats as float32, other types unchanged, without waiting."""
    tensors = {}
    for name, value in parameters.items():
        tensor = torch.from_numpy(np.ascontiguousarray(value, np.float32 if value.dtype == np.float64 else None))
        tensors[name] = on_device(tensor, device)
    return tensors
