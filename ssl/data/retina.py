"""`retina`: squares of the fundus photograph that comes with scikit-image, without masks: real vessels without a download."""

import numpy as np
from numpy.typing import ArrayLike

from wildfern.registry import register
from wildfern.ssl.data.base import DataError, Images, Source, Split

SIDE = 352
# Of the 4 × 4 squares of the photograph, those that its black corners do not reach.
INSIDE = ((0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2))


@register("source", "retina")
class RetinaSource(Source):
    """Twelve squares of 352 pixels of one fundus photograph of a healthy eye (Häggström, 2014, CC0), uint8[352, 352, 3].

    Unlabeled, and for trying things: one photograph is no data set. All of them are for training.
    """

    def __init__(self, split: Split = "train") -> None:
        from skimage.data import retina

        super().__init__()
        if split == "test":
            raise DataError("source 'retina' has no test split")
        photograph = retina()
        corners = [(SIDE * row, SIDE * column) for row, column in INSIDE]
        self._pixels = np.stack([photograph[top : top + SIDE, left : left + SIDE] for top, left in corners])
        self.num_items = len(corners)

    @property
    def fixed_size(self) -> bool:
        return True

    def read(self, items: ArrayLike) -> Images:
        return Images(self._pixels[np.asarray(items, np.int64)])
