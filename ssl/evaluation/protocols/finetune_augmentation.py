"""Augmentation of the train images of fine-tuning: padded or resized crops, flips, RandAugment and random erasing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.counter_rng import Keys, fold, key, uniform
from wildfern.ssl.augmentation.crop import crop_views
from wildfern.ssl.augmentation.operation import UNCHANGED, check_probabilities, on_device
from wildfern.ssl.augmentation.table import ViewSettings, draw_table
from wildfern.ssl.evaluation.preprocessing import Preprocessing, normalized
from wildfern.ssl.evaluation.protocols.rand_augment import LARGEST, OPERATIONS, draw_rand_augment, rand_augment
from wildfern.ssl.evaluation.protocols.random_erasing import random_erasing

MOST_PADDING = 128
CROP_RATIO = (3 / 4, 4 / 3)  # of ImageNet training since Szegedy et al. (2015)


def flip_and_crop(images: Tensor, draws: NDArray[np.float64], padding: int, flip: bool = True) -> Tensor:
    """Mirror each of float[N, 3, S, S] half the time (`flip`) and shift it by up to `padding` pixels, edges reflected.

    draws: float64[N, 3] in [0, 1), for flip, vertical and horizontal shift.
    """
    size = images.shape[2]
    line = torch.arange(size, device=images.device)
    shift = torch.from_numpy((draws[:, 1:] * (2 * padding + 1)).astype(np.int64)).to(images.device)
    mirrored = torch.from_numpy(draws[:, :1] < 0.5 * flip).to(images.device)
    columns = torch.where(mirrored, line.flip(0), line) + shift[:, 1:]
    rows = line + shift[:, :1]
    padded = F.pad(images, (padding,) * 4, mode="reflect")
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass(frozen=True)
class FinetuneAugmentation:
    """Settings of the train images. Raises ValueError for impossible ones.

    flip: mirror half of the images.
    padding: largest shift of a padded crop in pixels; None: an eighth of the size.
    crop_scale: smallest and largest area of a random resized crop, as shares of the image, in place of padded crops.
    rand_augment_layers, rand_augment_magnitude: number of operations (0: none) and their mean magnitude, 0 to 10.
    random_erasing: share of the images with a rectangle of noise.
    """

    flip: bool = True
    padding: int | None = None
    crop_scale: tuple[float, float] | None = None
    rand_augment_layers: int = 0
    rand_augment_magnitude: float = 9.0
    random_erasing: float = 0.0

    def __post_init__(self) -> None:
        if self.padding is not None and not 0 <= self.padding <= MOST_PADDING:
            raise ValueError(f"padding is the largest shift of a crop, 0 to {MOST_PADDING} pixels, got {self.padding}")
        if self.crop_scale is not None:
            self._resized(4)
            if self.padding is not None:
                raise ValueError("padding is for padded crops and crop_scale for random resized ones: give one of them")
        if not 0 <= self.rand_augment_layers <= len(OPERATIONS):
            raise ValueError(f"rand_augment_layers must be 0 to {len(OPERATIONS)}, got {self.rand_augment_layers}")
        if not 0 <= self.rand_augment_magnitude <= LARGEST:
            raise ValueError(f"rand_augment_magnitude must be 0 to {LARGEST:g}, got {self.rand_augment_magnitude}")
        if not self.rand_augment_layers and self.rand_augment_magnitude != type(self).rand_augment_magnitude:
            raise ValueError("rand_augment_magnitude has no effect without rand_augment_layers, for example 2")
        check_probabilities(random_erasing=self.random_erasing)

    def check_size(self, size: int | None) -> None:
        """Raises ValueError for images of `size` pixels (None: unknown) that are smaller than the padding."""
        if self.padding is not None and size is not None and self.padding >= size:
            raise ValueError(f"padding {self.padding} must be less than the {size} px of the images")

    def check_channels(self, channels: int) -> None:
        """Raises ValueError for RandAugment of images that are not red, green and blue."""
        if self.rand_augment_layers and channels != 3:
            raise ValueError(f"rand_augment_layers: RandAugment needs images of 3 channels, and these have {channels}")

    def describe(self, size: int | None = None) -> str:
        """Words for the description of a protocol; `size` in pixels, if it is known."""
        flips = "flips and " if self.flip else ""
        shift = self.padding if size is None else self._padding(size)
        if self.crop_scale is not None:
            low, high = (100 * share for share in self.crop_scale)
            words = [f"{flips}random resized crops of {low:g} to {high:g} % of the area"]
        else:
            words = [f"{flips}crops padded by {'an eighth of their size' if shift is None else f'{shift} px'}"]
        if self.rand_augment_layers:
            words.append(f"RandAugment of {self.rand_augment_layers} × magnitude {self.rand_augment_magnitude:g}")
        if self.random_erasing:
            words.append(f"random erasing {self.random_erasing:g}")
        return ", ".join(words)

    def __call__(
        self, images: Tensor, index: NDArray[np.int64], seed: int, epoch: int, preprocessing: Preprocessing
    ) -> Tensor:
        """Normalized float32[n, C, S, S] of the images uint8[n, C, S, S], which are those of `index` int64[n] in train.

        A pure function of the images, the seed, the epoch and the index.
        """

        def keys(what: str) -> Keys:
            return fold(np.uint64(key(f"finetune {what}", seed, epoch)), index)

        pixels, size = images.float() / 255, images.shape[2]
        if self.crop_scale is None:
            pixels = flip_and_crop(pixels, uniform(keys("crop"), 3), self._padding(size), self.flip)
        else:
            table = draw_table([self._resized(size)], key("finetune resized crop", seed), epoch, index, 0)
            boxes = on_device(torch.from_numpy(table.boxes(*np.full((2, len(index)), size))), images.device)
            mirrored = on_device(torch.from_numpy(table.flip), images.device)
            pixels = crop_views(pixels.permute(0, 2, 3, 1), boxes, mirrored, size, preprocessing.interpolation)
        if self.rand_augment_layers:
            drawn = draw_rand_augment(keys("rand augment"), self.rand_augment_layers, self.rand_augment_magnitude)
            whole = pixels.mul(255).round_().to(torch.uint8)
            pixels = rand_augment(whole, *drawn, _as_bytes(preprocessing.mean)).float() / 255
        pixels = normalized(pixels, preprocessing.mean, preprocessing.std)
        return random_erasing(pixels, keys("random erasing"), self.random_erasing) if self.random_erasing else pixels

    def _padding(self, size: int) -> int:
        return size // 8 if self.padding is None else self.padding

    def _resized(self, size: int) -> ViewSettings:
        given = {"crop_scale": self.crop_scale, "crop_ratio": CROP_RATIO, "flip": 0.5 * self.flip}
        return ViewSettings(**{**UNCHANGED, "size": size, **given})


def _as_bytes(mean: Sequence[float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in mean)
    return red, green, blue
