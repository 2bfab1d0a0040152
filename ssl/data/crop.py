"""Crops on the host: Pillow's anti-aliased resize of a fractional box."""

import numpy as np
from numpy.typing import ArrayLike

from wildfern.ssl.data.base import ImageArray
from wildfern.ssl.data.resize import resize


def crop_resize(image: ImageArray, box: ArrayLike, size: int) -> ImageArray:
    """The box (left, top, right, bottom; float pixels, inside the image) of uint8[H, W, C], resized to uint8[size, size, C]."""
    return crops_resize(image, [box], size)[0]


def crops_resize(image: ImageArray, boxes: ArrayLike, size: int) -> ImageArray:
    """Several boxes float[V, 4] of one image: uint8[V, size, size, C], bilinear with anti-aliasing."""
    out = np.empty((len(boxes), size, size, image.shape[2]), np.uint8)
    for row, box in enumerate(np.asarray(boxes, np.float64)):
        out[row] = resize(image, (size, size), tuple(box.tolist()))
    return out


def square(image: ImageArray, size: int, *, fraction: float = 1.0) -> ImageArray:
    """The evaluation crop: the centered square with `fraction` of the shorter side, resized to uint8[size, size, C].

    `fraction` 0.875 is "resize the shorter side to 256, center crop 224".
    """
    height, width = image.shape[:2]
    side = fraction * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return crop_resize(image, (left, top, left + side, top + side), size)
