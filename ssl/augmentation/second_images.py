"""The images that a view is adapted to or mixed with: from any source, chosen by the view's own keys."""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.counter_rng import uniform
from wildfern.ssl.augmentation.view_keys import image_keys
from wildfern.ssl.data.crop import square

# Endless sources are drawn from below this: never used up, and far below the images of their test split.
ENDLESS = 2**32


class ImageSet(Protocol):
    """A `wildfern.ssl.data.Source` or `Mixture`: numbered images, `num_items` of them (None: endless)."""

    num_items: int | None

    def read(self, items: NDArray[np.int64]) -> Any: ...


class SecondImages:
    """Second images for views of `size` px: centered squares, resized where they are not of that size already.

    `images` is any `ImageSet`. What is no such thing (the name of a source, which a recipe holds) is refused with a
    ValueError when the first image is wanted, so that views can be described before any data are opened.
    """

    def __init__(self, images: ImageSet, size: int) -> None:
        self.images, self.size = images, size

    def __len__(self) -> int:
        """How many there are to choose from."""
        return min(ENDLESS, self._opened().num_items or ENDLESS)

    @property
    def skipped(self) -> dict[str, str]:
        """What the source found unusable so far: name -> reason."""
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
                f"second images are read from an opened source, for instance open_source('dead_leaves', size=32), "
                f"not from {self.images!r}"
            )
        return self.images


def rows_that_fire(
    operation: str, probability: float, seed: int, step: int, view: int, positions: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Which of the images at these positions (int64[n]) of the global batch the operation of that name changes."""
    keys = image_keys(f"{operation} fires", seed, step, view, positions)
    return np.flatnonzero(uniform(keys, 1)[:, 0] < probability)
