"""Pillow's anti-aliased resize for images of any number of bands."""

import numpy as np
from PIL import Image

from wildfern.ssl.data.base import ImageArray


def resize(
    image: ImageArray,
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
    reducing_gap: float | None = None,
) -> ImageArray:
    """uint8[H, W, C] -> uint8[height, width, C], bilinear; `size` is (width, height), `box` (left, top, right, bottom)."""
    if image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box, reducing_gap))
    bands = (Image.fromarray(np.ascontiguousarray(image[..., band])) for band in range(image.shape[2]))
    return np.stack([np.asarray(b.resize(size, Image.Resampling.BILINEAR, box, reducing_gap)) for b in bands], axis=-1)


def within(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """(width, height) shrunk so that neither is above `max_side`."""
    if max_side is None or max(size) <= max_side:
        return size
    scale = max_side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
