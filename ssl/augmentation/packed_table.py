"""All parameters of a batch of views in one array: one copy to the device, where they are slices of it."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = dict[str, NDArray]


@dataclass(frozen=True)
class PackedTable:
    """Arrays, by group and name, concatenated in `values` (float32[K], pinned for a GPU)."""

    values: Tensor
    layout: list[dict[str, tuple[int, tuple[int, ...], bool]]]  # each array's offset, shape, and whether it is boolean
    _copies: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def on(self, device: torch.device) -> list[dict[str, Tensor]]:
        """The arrays of each group on the device, float32 or bool; copied once, without waiting."""
        if device not in self._copies:
            self._copies[device] = self.values.to(device, non_blocking=True)
        values = self._copies[device]
        return [{name: _part(values, *place) for name, place in group.items()} for group in self.layout]


def pack(groups: list[Numbers], pinned: bool) -> PackedTable:
    """Concatenate arrays of floats, booleans and integers below 2²⁴; `pinned`: in pinned memory, for asynchronous copies."""
    flat, layout, begin = [], [], 0
    for group in groups:
        places = {}
        for name, array in group.items():
            places[name] = (begin, array.shape, array.dtype == np.bool_)
            flat.append(array.ravel().astype(np.float32))
            begin += array.size
        layout.append(places)
    values = torch.from_numpy(np.concatenate(flat)) if flat else torch.empty(0)
    return PackedTable(values.pin_memory() if pinned else values, layout)


def _part(values: Tensor, begin: int, shape: tuple[int, ...], is_bool: bool) -> Tensor:
    part = values[begin : begin + int(np.prod(shape))].view(shape)
    return part.bool() if is_bool else part
