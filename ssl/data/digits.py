"""`digits`: 1 797 handwritten digits of 8 x 8 pixels that come with scikit-learn: real images without a download."""

import numpy as np
from numpy.typing import ArrayLike

from wildfern.registry import register
from wildfern.ssl.data.base import Images, Source, Split
from wildfern.ssl.data.splits import stratified_split

TEST_FRACTION = 0.3


@register("source", "digits")
class DigitsSource(Source):
    """UCI's digits as gray RGB, uint8[8, 8, 3] (0 … 16 scaled to 0 … 255).

    A fixed split: 70 % of each class for training (1 258 images) and 30 % for testing (539 images).
    """

    def __init__(self, split: Split = "train") -> None:
        from sklearn.datasets import load_digits

        super().__init__()
        digits = load_digits()
        gray = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)
        items = stratified_split(digits.target, split, "digits", TEST_FRACTION)
        self._pixels = np.repeat(gray[items, :, :, None], 3, axis=3)
        self.labels = digits.target[items].astype(np.int64)
        self.num_items = len(items)
        self.class_names = [str(name) for name in digits.target_names]

    @property
    def fixed_size(self) -> bool:
        return True

    def read(self, items: ArrayLike) -> Images:
        items = np.asarray(items, np.int64)
        return Images(self._pixels[items], self.labels[items])
