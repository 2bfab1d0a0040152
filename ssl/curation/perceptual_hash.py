"""pHash: the signs of the lowest frequencies of an image, 64 bits that survive re-encoding and resizing (Zauner, 2010)."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.base import DataError

SIDE = 32  # pixels that the image is shrunk to
LOW = 8  # frequencies in each direction
_DECIMALS = 6  # of coefficients: frequencies that an image lacks are 0, not the rounding errors of one processor


def perceptual_hash(gray: NDArray[np.floating]) -> int:
    """64 bits of a gray image float[32, 32]: whether each of the 8 x 8 lowest DCT coefficients is above their median.

    The first coefficient, the mean, is left out, so that brightness does not count: its bit is always 0. Raises DataError for
    another shape.
    """
    if gray.shape != (SIDE, SIDE):
        raise DataError(
            f"a hash is of a gray image [{SIDE}, {SIDE}], got {list(gray.shape)}; `values_of` shrinks images"
        )
    low = np.round(_basis() @ gray @ _basis().T, _DECIMALS)
    median = np.sort(low.ravel()[1:])[(LOW * LOW - 1) // 2]
    bits = low > median
    bits[0, 0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _basis() -> NDArray[np.float64]:
    """The first 8 rows of the DCT-II of 32 values."""
    places = np.arange(SIDE) + 0.5
    return np.cos(np.pi / SIDE * np.arange(LOW)[:, None] * places)
