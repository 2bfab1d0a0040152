"""`mask_mix`: images composed of others by a mask that k-means finds in a third, then mixed in pairs.

The "KML MixUp" images of "Separating Knowledge and Perception with Procedural Data" (ICML 2025), there of shaders, here of any
source. The mask of one image decides where each of two others is seen; MixUp (Zhang et al., ICLR 2018) of two such images
follows.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.generators.counter_rng import Keys, fold, integers, key
from wildfern.registry import register
from wildfern.ssl.data.base import DataError, ImageArray, Images, Split
from wildfern.ssl.data.crop import square
from wildfern.ssl.data.kmeans_mask import kmeans_mask
from wildfern.ssl.data.nested_source import Nested, NestedSource, open_nested
from wildfern.ssl.data.synthetic import TEST_START

PARTS = 3  # images of a composition: that of the mask, and the two that it shows
ENDLESS = 2**32  # images of an endless source that are used
WEIGHTS = 256


@register("source", "mask_mix")
class MaskMixSource(NestedSource):
    """Endless images of `size` px: image i is composed of three images of the source `of`, drawn at random, and with `mixup` it
    is the weighted mean of two such compositions, the weight uniform in [0, 1).

    of: a name, or a mapping like an entry of `data`; photographs are cropped to a square and resized. size: that of the images
    of `of` by default, if they have one. seed: another seed gives other images, also of a generator. Images have no labels.
    Image i has the same bytes in any batch and on any number of threads. Raises DataError for what cannot be opened.
    """

    def __init__(
        self, split: Split = "train", *, of: Nested, size: int | None = None, mixup: bool = True, seed: int = 0
    ) -> None:
        super().__init__(open_nested(of, split, seed))
        if size is not None and not 8 <= size <= 2048:
            raise DataError(f"size must lie between 8 and 2048, not {size}")
        found = size or getattr(getattr(self.inner, "stream", None), "size", None)
        if found is None:
            raise DataError("mask_mix needs a size in pixels, unless its images are rendered, all of one size")
        self.size, self.mixup = int(found), mixup
        self.inner.reads_labels = False
        self._key = np.array([key("mask_mix", seed)], np.uint64)
        self._start = TEST_START if split == "test" else 0

    @property
    def fixed_size(self) -> bool:
        return True

    def read(self, items: ArrayLike) -> Images:
        keys = fold(self._key, np.asarray(items, np.int64) + self._start)
        compositions = 2 if self.mixup else 1
        numbers = self._numbers(keys, compositions * PARTS)
        distinct, place = np.unique(numbers, return_inverse=True)
        place = place.reshape(numbers.shape)
        images = self.inner.read(distinct).on_host().pixels if len(distinct) else []
        pixels = np.empty((len(keys), self.size, self.size, self.channels), np.uint8)
        mask_keys, weights = fold(keys, 1), integers(fold(keys, 2), 1, WEIGHTS)[:, 0]
        squares = [self._squared(image) for image in images]
        for i, row in enumerate(place):
            parts = [squares[number] for number in row]
            composed = [
                compose(*parts[PARTS * c : PARTS * (c + 1)], fold(mask_keys[i : i + 1], c)[0])
                for c in range(compositions)
            ]
            pixels[i] = mix_pair(*composed, int(weights[i])) if self.mixup else composed[0]
        return Images(pixels)

    def _numbers(self, keys: Keys, count: int) -> NDArray[np.int64]:
        """int64[n, count]: the images of `of` that each image is made from."""
        most = self.inner.num_items
        return integers(fold(keys, 0), count, ENDLESS if most is None else most)

    def _squared(self, image: ImageArray) -> ImageArray:
        return image if image.shape[:2] == (self.size, self.size) else square(image, self.size)


def compose(of_mask: ImageArray, outside: ImageArray, inside: ImageArray, mask_key: np.uint64) -> ImageArray:
    """uint8[S, S, C]: `inside` where the mask of `of_mask` is true, else `outside`."""
    return np.where(kmeans_mask(of_mask, mask_key)[:, :, None], inside, outside)


def mix_pair(one: ImageArray, other: ImageArray, weight: int) -> ImageArray:
    """The mean with `weight` / 256 of the second image, rounded: uint8, as `one` and `other`."""
    mixed = one.astype(np.uint16) * np.uint16(WEIGHTS - weight) + other.astype(np.uint16) * np.uint16(weight)
    return ((mixed + np.uint16(WEIGHTS // 2)) >> np.uint16(8)).astype(np.uint8)
