"""Boxes of an image, such as faces, blurred so far that nobody can be recognized."""

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CELLS = 6  # per side of a box
_CELL = 8  # pixels, at least


def blur_boxes(image: NDArray[np.uint8], boxes: Sequence[Sequence[float]], margin: float = 0.2) -> NDArray[np.uint8]:
    """A copy of uint8[H, W, 3] in which each box is made of the means of at most 6 x 6 cells of it, interpolated.

    Nothing else of what was in the box is left. Cells have at least 8 pixels per side, so a smaller box becomes its mean. Edges
    between them are smooth, so that they are no feature to be learned.

    - boxes: left, top, right and bottom in pixels; what follows, such as a score, is not read.
    - margin: by which a box is enlarged on each side, relative to its own width and height.
    """
    height, width = image.shape[:2]
    blurred = image.copy()
    for left, top, right, bottom, *_ in boxes:
        across, down = margin * (right - left), margin * (bottom - top)
        x0, x1 = max(floor(left - across), 0), min(ceil(right + across), width)
        y0, y1 = max(floor(top - down), 0), min(ceil(bottom + down), height)
        if x0 >= x1 or y0 >= y1:
            continue
        inside = Image.fromarray(blurred[y0:y1, x0:x1])
        means = inside.resize((_cells(x1 - x0), _cells(y1 - y0)), Image.Resampling.BOX)
        blurred[y0:y1, x0:x1] = np.asarray(means.resize(inside.size, Image.Resampling.BILINEAR))
    return blurred


def _cells(length: int) -> int:
    return min(max(length // _CELL, 1), CELLS)
