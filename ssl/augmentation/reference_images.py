"""Reference images of a view: the targets of Fourier domain adaptation or the mixing set of PixMix, from any source."""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.counter_rng import uniform
from wildfern.ssl.augmentation.view_keys import image_keys
from wildfern.ssl.data.base import ImageArray
from wildfern.ssl.data.crop import crop_resize, square

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

    def read(
        self,
        items: NDArray[np.int64],
        crop_pixels: tuple[float, float] | None = None,
        places: NDArray[np.float64] | None = None,
    ) -> Tensor:
        """uint8[n, 3, size, size]: the images with these numbers (int64[n]).

        With `crop_pixels` [low, high] and `places` float[n, 3] in [0, 1): squares instead, whose side (in pixels, at most the
        image's shorter one), top and left follow from these numbers.
        """
        out = np.empty((len(items), self.size, self.size, 3), np.uint8)
        pixels = self._opened().read(items).on_host().pixels if len(items) else []
        for number, (row, image) in enumerate(zip(out, pixels, strict=True)):
            if crop_pixels is not None and places is not None:
                row[:] = _random_square(image, crop_pixels, places[number], self.size)
            else:
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


def _random_square(
    image: ImageArray, crop_pixels: tuple[float, float], place: NDArray[np.float64], size: int
) -> ImageArray:
    """A square of the image, resized to uint8[size, size, 3]; its side, top and left follow from float[3] in [0, 1)."""
    height, width = image.shape[:2]
    low, high = crop_pixels
    side = min(round(low + (high - low) * place[0]), height, width)
    top, left = int(place[1] * (height - side + 1)), int(place[2] * (width - side + 1))
    if side == size:
        return image[top : top + side, left : left + side]
    return crop_resize(image, (left, top, left + side, top + side), size)


def rows_to_change(
    operation: str, probability: float, seed: int, step: int, view: int, positions: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of the images, among those at these positions (int64[n]) of the global batch, that the operation changes."""
    keys = image_keys(f"{operation} fires", seed, step, view, positions)
    return np.flatnonzero(uniform(keys, 1)[:, 0] < probability)
