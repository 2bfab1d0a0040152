"""Masks drawn over their images: what was found, and how it differs from the truth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_] | NDArray[np.integer]
RGB = Sequence[int]

# Of the palette of Okabe & Ito (2008), which people of all kinds of color vision tell apart; on gray, which is none of them.
FOUND = (86, 180, 233)  # sky blue: in both masks
MISSED = (213, 94, 0)  # vermilion: in the mask alone
FALSE_ALARM = (240, 228, 66)  # yellow: predicted alone

_TINT = 0.4  # of the opacity, inside an outline
_OUTSIDE = 0.35  # of the brightness, outside the region
_GRAY = (0.299, 0.587, 0.114)  # luma, ITU-R BT.601


def overlay(
    image: NDArray[np.uint8],
    mask: Mask,
    *,
    color: RGB = (0, 220, 255),
    opacity: float = 0.6,
    outline: bool = True,
) -> NDArray[np.uint8]:
    """The image uint8[H, W, C] or [H, W] with the mask [H, W] (bool, or not 0) in `color`, as uint8[H, W, 3].

    Of the image, the first three channels are shown, or the first one as gray.

    - opacity: the part of the color in its mixture with the pixel, in [0, 1].
    - outline: only pixels of the mask with one outside it among their four neighbors get all of `opacity`; those inside get less
      than half of it, so that the object remains visible.

    Raises ValueError for another shape, type or opacity.
    """
    shown = _rgb(image)
    marked = _marked(mask, "mask", shown)
    border = marked & ~ndimage.binary_erosion(marked, border_value=1)
    _mix(shown, border if outline else marked, color, opacity)
    if outline:
        _mix(shown, marked & ~border, color, _TINT * opacity)
    return shown


def comparison(
    image: NDArray[np.uint8], predicted: Mask, mask: Mask, region: Mask | None = None, *, opacity: float = 0.75
) -> NDArray[np.uint8]:
    """Where a predicted mask [H, W] is right and wrong, over the image in gray, uint8[H, W, 3].

    Sky blue: in both masks. Vermilion: missed by the prediction. Yellow: predicted, but not in the mask. Outside of `region`
    (0), where masks say nothing, the image is dark and nothing is colored. Images and masks are as of `overlay`.
    """
    shown = _rgb(image)
    found, true = _marked(predicted, "predicted", shown), _marked(mask, "mask", shown)
    inside = np.ones_like(true) if region is None else _marked(region, "region", shown)
    gray = shown @ np.array(_GRAY, np.float32)
    shown[:] = np.round(np.where(inside, gray, _OUTSIDE * gray))[..., None]
    for part, color in ((found & true, FOUND), (~found & true, MISSED), (found & ~true, FALSE_ALARM)):
        _mix(shown, part & inside, color, opacity)
    return shown


def _mix(shown: NDArray[np.uint8], where: NDArray[np.bool_], color: RGB, opacity: float) -> None:
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is in [0, 1], got {opacity}")
    shown[where] = np.round((1 - opacity) * shown[where] + opacity * np.array(color))


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of what is shown of an image, uint8[H, W, 3]."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape[2:]:
        raise ValueError(f"an image is uint8[H, W, C] or [H, W], got {image.dtype}{list(image.shape)}")
    pixels = image[..., None] if image.ndim == 2 else image
    return pixels[..., :3].copy() if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)


def _marked(mask: Mask, name: str, shown: NDArray[np.uint8]) -> NDArray[np.bool_]:
    if mask.dtype.kind not in "biu" or mask.shape != shown.shape[:2]:
        wanted = list(shown.shape[:2])
        raise ValueError(f"{name} is bool{wanted} or of integers, like its image, got {mask.dtype}{list(mask.shape)}")
    return mask != 0
