"""What the host hands to the device for the views of a batch."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.ssl.augmentation.kornia_operation import Parameters
from wildfern.ssl.augmentation.packed_table import PackedTable
from wildfern.ssl.augmentation.table import AugmentationParameters


@dataclass(frozen=True)
class ViewBatch:
    """What the device needs to make the views of n images: the images (or their crops, cut on the host) and the parameters.

    Images and masks that a GPU draws are on it already, complete once the event `drawn` has happened.
    """

    pixels: (
        NDArray[np.uint8] | Tensor | list[NDArray[np.uint8]]
    )  # [n, H, W, C], or crops [V, n, size, size, C] per group
    tables: list[AugmentationParameters]  # one per group, like all lists here
    boxes: list[NDArray[np.int64]]  # [V, n, 4]: top, left, height, width of each crop, in pixels of the image it shows
    geometry: list[NDArray[np.float32]]  # [V, n, 5]: see `Views.geometry`
    paired_images: NDArray[np.uint8] | Tensor | None = None  # [n, H, W, C]: shown by odd views
    masks: NDArray[np.uint8] | Tensor | list[NDArray[np.uint8]] | None = (
        None  # [n, H, W], or [V, n, size, size] per group
    )
    drawn: torch.cuda.Event | None = None
    extra: list[list[list[Parameters]]] | None = None  # parameters of each further operation, by group and view
    packed: PackedTable | None = None  # the tables' numbers in one array, where torch makes the views
    # The reader of the images sets these; no view depends on them.
    labels: NDArray[np.int64] | NDArray[np.uint8] | None = None  # int64[n], -1 unlabeled; or multi-hot uint8[n, K]
    source: NDArray[np.int64] | None = None  # int64[n]: which entry of `data` each image came from
    items: NDArray[np.int64] | None = (
        None  # int64[n]: number among the images of all finite sources, -1 for endless ones
    )
    parameters: NDArray[np.float32] | None = None  # float32[n, P]: what the images were rendered with, standardized
    masked: NDArray[np.bool_] | None = None  # bool[n]: whether the source of an image has masks
