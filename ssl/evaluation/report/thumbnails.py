"""Small images for a page, embedded in it as PNG or JPEG."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 96  # pixels, of the longer side
LOSSLESS = 32  # pixels: images up to this size are embedded as they are
COPY = 8.0  # mean difference of two thumbnails, of 255, below which one looks like a copy of the other
COMPARED = 16  # pixels of the side at which they are compared


@dataclass(frozen=True)
class Thumbnail:
    """An image of at most `SIDE` pixels as a data URI, its name, and `small` float32[16, 16, 3] to compare it with others."""

    uri: str
    name: str
    small: NDArray[np.float32]

    def looks_like(self, other: "Thumbnail") -> bool:
        """Whether the two images are nearly the same, pixel by pixel."""
        return float(np.abs(self.small - other.small).mean()) < COPY


def thumbnail(image: NDArray[np.uint8], name: str = "") -> Thumbnail:
    """The thumbnail of an image uint8[H, W, C]: its first three channels, or the first as gray; small images as they are."""
    pixels = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    whole = Image.fromarray(np.ascontiguousarray(pixels))
    scale = SIDE / max(whole.size)
    shown = whole
    if scale < 1:
        sides = tuple(max(1, round(side * scale)) for side in whole.size)
        shown = whole.resize(sides, Image.Resampling.BILINEAR, reducing_gap=3.0)
    content, kind = io.BytesIO(), "png" if max(shown.size) <= LOSSLESS else "jpeg"
    shown.save(content, kind, **({"optimize": True} if kind == "png" else {"quality": 82}))
    uri = f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
    small = shown.resize((COMPARED, COMPARED), Image.Resampling.BILINEAR)
    return Thumbnail(uri, name, np.asarray(small, np.float32))
