"""Input images and masks of views: checked, in one form, on the right device, assigned to the views of pairs."""

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wildfern.ssl.augmentation.operation import on_device

T = TypeVar("T")


def checked_images(pixels: Any, paired_images: Any, n: int, channels: int = 3) -> tuple[Any, Any]:
    """n images, and the second images of pairs (or None), with C channels: uint8[n, H, W, C] or a list of uint8[H, W, C].

    For three channels, gray images [n, H, W] or [n, H, W, 1] are repeated; sequences may also hold Pillow images and tensors.
    Raises ValueError for other types and shapes.
    """
    pixels = _arrays_or_list(pixels, channels)
    paired_images = None if paired_images is None else _arrays_or_list(paired_images, channels)
    if len(pixels) != n:
        raise ValueError(f"{len(pixels)} images for {n} positions: one image per position is needed")
    if paired_images is None:
        return pixels, None
    if isinstance(pixels, list) != isinstance(paired_images, list) or len(paired_images) != n:
        raise ValueError(f"paired images must be {n}, in the form of the first images: both arrays, or both lists")
    if not isinstance(pixels, list) and pixels.shape != paired_images.shape:
        raise ValueError(
            f"paired images must be {list(pixels.shape)} like the first images, not {list(paired_images.shape)}; give lists of "
            "images if their sizes differ"
        )
    return pixels, paired_images


def _arrays_or_list(pixels: Any, channels: int) -> Any:
    """An array or tensor of images, or a list of arrays."""
    if isinstance(pixels, np.ndarray | Tensor):
        return _with_channels(pixels, channels)
    return [_as_array(image, number, channels) for number, image in enumerate(pixels)]


def _as_array(image: Any, number: int, channels: int) -> NDArray[np.uint8]:
    if isinstance(image, Image.Image):
        image = image if image.mode in ("L", "RGB") else image.convert("RGB")
    array = image.cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in _taken(channels)):
        raise ValueError(f"image {number} must be {_wanted('H, W', channels)}, not {list(array.shape)}")
    return _with_channels(array.reshape(1, *array.shape[:2], -1) if array.size else array[None], channels)[0]


def _taken(channels: int) -> tuple[int, ...]:
    return (1, 3) if channels == 3 else (channels,)


def _wanted(sides: str, channels: int) -> str:
    if channels == 3:
        return f"[{sides}, 3], or [{sides}] if gray"
    return f"[{sides}, {channels}], as the mean and std of the views have {channels} numbers"


def _with_channels(pixels: Any, channels: int) -> Any:
    if pixels.dtype not in (np.uint8, torch.uint8):
        hint = "; for 16 bits, convert by (images >> 8).astype(np.uint8)" if pixels.dtype == np.uint16 else ""
        raise ValueError(f"images must be uint8, not {pixels.dtype}{hint}")
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[-1] not in _taken(channels):
        raise ValueError(f"images must be {_wanted('n, H, W', channels)}, not {list(pixels.shape)}")
    if not all(pixels.shape[1:3]):
        raise ValueError(f"images must have at least one pixel, got {list(pixels.shape)}")
    if pixels.shape[-1] == channels:
        return pixels
    return pixels.expand(-1, -1, -1, 3) if isinstance(pixels, Tensor) else np.repeat(pixels, 3, axis=-1)


def checked_masks(masks: Any, pixels: Any) -> Any:
    """Masks of images that went through `checked_images`: uint8[n, H, W] (array or tensor), or a list of uint8[H, W] for a list.

    Raises ValueError for another type, number or size.
    """
    if isinstance(pixels, list) or not isinstance(masks, np.ndarray | Tensor):
        masks = [mask.cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask) for mask in masks]
    if isinstance(masks, list):
        wanted, given = [list(image.shape[:2]) for image in pixels], [list(mask.shape) for mask in masks]
        kinds = {str(mask.dtype) for mask in masks} or {"uint8"}
    else:
        wanted, given, kinds = list(pixels.shape[:3]), list(masks.shape), {str(masks.dtype).removeprefix("torch.")}
    if kinds != {"uint8"}:
        raise ValueError(f"masks must be uint8, not {', '.join(sorted(kinds))}")
    if wanted == given:
        return masks if isinstance(pixels, list) or not isinstance(masks, list) else np.stack(masks)
    if not isinstance(masks, list):
        raise ValueError(f"masks must be {wanted} like their images, not {given}")
    if len(masks) != len(pixels):
        raise ValueError(f"{len(masks)} masks for {len(pixels)} images: one mask per image is needed")
    i = next(i for i in range(len(wanted)) if wanted[i] != given[i])
    raise ValueError(f"mask {i} must be {wanted[i]} like its image, not {given[i]}")


def views_of_images(images: T, paired_images: T | None, first: int) -> list[tuple[T, slice]]:
    """Pairs of images and the views of a group that show them; the number of the group's first view is `first`."""
    if paired_images is None:
        return [(images, slice(None))]
    return [(images, slice(first % 2, None, 2)), (paired_images, slice(1 - first % 2, None, 2))]


def merged_views(parts: list[tuple[Tensor, slice]], views: int, n: int) -> Tensor:
    """Views [V * n, …] from parts of them, each with its places among the V."""
    whole = parts[0][0].new_empty(views, n, *parts[0][0].shape[1:])
    for part, which in parts:
        whole[which] = part.unflatten(0, (-1, n)) if n else part.view(0, *part.shape[1:])
    return whole.flatten(0, 1)


def to_device(
    pixels: NDArray[np.uint8] | Tensor, device: torch.device, drawn: torch.cuda.Event | None = None
) -> Tensor:
    """Images as a tensor on the device; they are complete once the event `drawn` has happened."""
    if isinstance(pixels, Tensor):
        if drawn is not None:  # drawn on the stream of a loader thread, which may be another one
            stream = torch.cuda.current_stream(pixels.device)
            stream.wait_event(drawn)
            pixels.record_stream(stream)
        return pixels.to(device)
    return on_device(torch.from_numpy(pixels), device)
