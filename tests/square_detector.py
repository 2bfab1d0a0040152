"""A people detector for tests: it finds red squares, in any process."""

import numpy as np
from PIL import Image

from wildfern.ssl.curation.detector import Box, Detector


class SquareDetector(Detector):
    """Finds the one rectangle of at least 12 x 12 red pixels.

    `weights` stands for those of a network, and `fails_at` (height, width) for a bug in it.
    """

    detects = "squares"
    not_checked = "squares of other colors"
    tile = 256

    def __init__(self, weights: str = "first", fails_at: tuple[int, int] | None = None) -> None:
        super().__init__("squares", weights.encode(), "squares")
        self._weights, self._fails_at = weights, fails_at

    def __reduce__(self):
        return type(self), (self._weights, self._fails_at)

    @property
    def description(self) -> str:
        return f"squares, weights {self._weights}"

    def detect(self, image: np.ndarray) -> list[Box]:
        if image.shape[:2] == self._fails_at:
            raise RuntimeError("a bug")
        red = (image[..., 0] > 200) & (image[..., 1] < 60) & (image[..., 2] < 60)
        rows, columns = np.flatnonzero(red.sum(1) >= 12), np.flatnonzero(red.sum(0) >= 12)
        if not len(rows) or not len(columns):
            return []
        return [Box(float(columns[0]), float(rows[0]), columns[-1] + 1.0, rows[-1] + 1.0, 0.9)]


def with_square(image: Image.Image, left: int = 12, top: int = 10, side: int = 16) -> Image.Image:
    """A darker copy of the image with a red square, the only red in it."""
    image = image.point(lambda value: value // 2)
    image.paste((255, 0, 0), (left, top, left + side, top + side))
    return image
