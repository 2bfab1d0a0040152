"""Where crops lie in their images, and the same crops of masks, by nearest neighbor."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def sides(images: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Heights and widths, int64[n] each, of images [n, H, W, …] or a list of [H, W, …]."""
    if isinstance(images, list):
        return tuple(np.array([image.shape[side] for image in images], np.int64) for side in (0, 1))
    return np.full(len(images), images.shape[1]), np.full(len(images), images.shape[2])


def crop_geometry(
    boxes: NDArray[np.int64], flip: NDArray[np.bool_], heights: NDArray[np.int64], widths: NDArray[np.int64]
) -> NDArray[np.float32]:
    """float32[V, n, 5]: left, top, right, bottom of boxes [V, n, 4] as shares of images of these sizes (int64[n] or [V, n]).

    Boxes are (top, left, height, width) in pixels. The fifth number is 1 where `flip` (bool[V, n]), else 0.
    """
    top, left, height, width = np.moveaxis(boxes, -1, 0)
    out = np.empty((*flip.shape, 5), np.float32)
    shares = (left / widths, top / heights, (left + width) / widths, (top + height) / heights, flip)
    for place, share in enumerate(shares):
        out[..., place] = share
    return out


def nearest_pixels(boxes: Tensor, flip: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Rows and columns int64[…, size] of the source pixels of views: boxes […, 4] (top, left, height, width), flip bool[…].

    Row i is top + ⌊(i + ½) · height / size⌋, in whole numbers, so that nothing is rounded; columns likewise, then flipped.
    """
    top, left, height, width = boxes.long().unsqueeze(-1).unbind(-2)
    middle = 2 * torch.arange(size, device=boxes.device) + 1
    across = torch.where(flip.unsqueeze(-1), 2 * size - middle, middle)
    return top + middle * height // (2 * size), left + across * width // (2 * size)


def crop_masks(masks: Tensor, boxes: Tensor, flip: Tensor, size: int) -> Tensor:
    """All views of masks [n, H, W]: boxes [V, n, 4], flip bool[V, n] -> [V, n, size, size]."""
    rows, columns = nearest_pixels(boxes, flip, size)
    which = torch.arange(len(masks), device=masks.device)[:, None, None]
    return masks[which, rows[..., :, None], columns[..., None, :]]


def crop_masks_on_host(
    masks: Sequence[NDArray[np.uint8]], boxes: NDArray[np.int64], flip: NDArray[np.bool_], size: int
) -> NDArray[np.uint8]:
    """As `crop_masks`, of masks uint8[Hi, Wi] of different sizes: uint8[V, n, size, size]."""
    out = np.empty((*flip.shape, size, size), np.uint8)
    rows, columns = (t.numpy() for t in nearest_pixels(torch.from_numpy(boxes), torch.from_numpy(flip), size))
    for i, mask in enumerate(masks):
        for v in range(len(out)):
            out[v, i] = mask[rows[v, i][:, None], columns[v, i]]
    return out
