"""Reference images of a view: the targets of Fourier domain adaptation or the mixing set of PixMix, from any source."""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.counter_rng import uniform
from wildfern.ssl.augmentation.view_keys import image_keys
from wildfern.ssl.data.crop import square

# Items of endless sources are drawn from [0, ENDLESS): enough, and far below their test split.
ENDLESS = 2**32


class ImageSet(Protocol):
    """A `wildfern.ssl.data.Source` or `Mixture`: numbered images, `num_items` of them (None: endless)."""

    num_items: int | None

    def read(self, items: NDArray[np.int64]) -> Any: ...


class ReferenceImages:
    """Reference images for views of `size` px: center squares, resized unless they have that size.

    `images` is any `ImageSet`. Anything else (the name of a source in a recipe) raises a ValueError when the first image is
    read, so that views can be described before any data is opened.
    """

    def __init__(self, images: ImageSet, size: int) -> None:
        self.images, self.size = images, size

    def __len__(self) -> int:
        """Number of images."""
        return min(ENDLESS, self._opened().num_items or ENDLESS)

    @property
    def skipped(self) -> dict[str, str]:
        """The unusable items that the source found so far: name -> reason."""
        return dict(getattr(self.images, "skipped", {}))

    def read(self, items: NDArray[np.int64]) -> Tensor:
        """uint8[n, 3, size, size]: the images with these numbers (int64[n])."""
        out = np.empty((len(items), self.size, self.size, 3), np.uint8)
        pixels = self._opened().read(items).on_host().pixels if len(items) else []
        for row, image in zip(out, pixels, strict=True):
            row[:] = image if image.shape == row.shape else square(image, self.size)
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def _opened(self) -> ImageSet:
        if not hasattr(self.images, "read"):
            raise ValueError(
                f"reference images need an opened source, for example open_source('dead_leaves', size=32), not {self.images!r}"
            )
        if (channels := getattr(self.images, "channels", 3)) != 3:
            raise ValueError(
                f"reference images must be RGB, but their source gives {channels} channels: choose three bands"
            )
        return self.images


def rows_to_change(
    operation: str, probability: float, seed: int, step: int, view: int, positions: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of the images, among those at these positions (int64[n]) of the global batch, that the operation changes."""
    keys = image_keys(f"{operation} fires", seed, step, view, positions)
    return np.flatnonzero(uniform(keys, 1)[:, 0] < probability)
