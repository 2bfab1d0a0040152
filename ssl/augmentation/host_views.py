"""The views of a batch on the host: the operations of the other files, fused into one kernel, on several threads."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.threads import Threads
from wildfern.ssl.augmentation.host_kernel import ViewNumbers, render_slice
from wildfern.ssl.augmentation.normalization import MEAN, STD
from wildfern.ssl.augmentation.table import AugmentationParameters

ImageArrays = NDArray[np.uint8]

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
_IDENTITY = np.ones(3, np.float32), np.zeros(3, np.float32)
_SLICE = 2**17  # pixels of views per task of a thread: somewhat less than a millisecond


def render_views(
    pixels: ImageArrays,
    table: AugmentationParameters,
    size: int,
    threads: int,
    dtype: torch.dtype = torch.float32,
    paired_images: ImageArrays | None = None,
    first: int = 0,
    normalization: Normalization | None = (MEAN, STD),
    boxes: NDArray[np.int64] | None = None,
) -> Tensor:
    """The views of images uint8[n, H, W, 3] with the parameters of a table: [V, n, 3, size, size], channels last in memory.

    Normalized with a mean and a standard deviation of three numbers each, or left in [0, 1] (None). With `paired_images` (in the
    form of `pixels`), odd views show these; the number of the first view is `first`. `dtype` is float32 or bfloat16. `boxes`
    int64[V, n, 4] are by default those of the table. A view depends only on its image and its own parameters, not on the threads.
    Raises ValueError for anything else.
    """
    views, n = table.flip.shape
    _check(pixels, (n, *pixels.shape[1:3], 3), size, threads, dtype)
    height, width = pixels.shape[1:3]
    if paired_images is None:
        paired_images, odd = pixels, np.zeros(views, np.bool_)
    else:
        _check(paired_images, pixels.shape, size, threads, dtype)
        odd = (first + np.arange(views)) % 2 == 1
    if boxes is None:
        boxes = table.boxes(np.full(n, height), np.full(n, width))
    numbers = _view_numbers(table, boxes, table.flip, table.interpolation == "bicubic")
    return _render((pixels, paired_images, odd, 0), numbers, size, threads, dtype, normalization)


def render_crops(
    crops: ImageArrays,
    table: AugmentationParameters,
    threads: int,
    dtype: torch.dtype = torch.float32,
    normalization: Normalization | None = (MEAN, STD),
) -> Tensor:
    """As `render_views`, for crops that are already resized and flipped: uint8[V, n, size, size, 3]."""
    views, n = table.flip.shape
    size = crops.shape[2]
    _check(crops, (views, n, size, size, 3), size, threads, dtype)
    boxes = np.broadcast_to(np.array([0, 0, size, size]), (views, n, 4))
    numbers = _view_numbers(table, boxes, np.zeros_like(table.flip), cubic=False)
    crops = crops.reshape(-1, size, size, 3)
    return _render((crops, crops, np.zeros(views, np.bool_), n), numbers, size, threads, dtype, normalization)


def _check(pixels: ImageArrays, shape: tuple[int, ...], size: int, threads: int, dtype: torch.dtype) -> None:
    if pixels.dtype != np.uint8 or pixels.shape != shape or not all(shape[-3:]):
        raise ValueError(f"images must be uint8{list(shape)}, not {pixels.dtype}{list(pixels.shape)}")
    if size < 4:
        raise ValueError(f"a view of {size} px is too small: the minimum is 4")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"views are float32 or bfloat16, not {dtype}")


def _view_numbers(
    table: AugmentationParameters, boxes: NDArray[np.int64], flip: NDArray[np.bool_], cubic: bool
) -> ViewNumbers:
    amounts = np.empty((*table.hue.shape, 4), np.float32)
    for place, amount in enumerate((table.brightness, table.contrast, table.saturation, table.hue)):
        amounts[..., place] = amount
    return ViewNumbers(
        np.ascontiguousarray(boxes, np.int64),
        np.ascontiguousarray(flip),
        cubic,
        amounts,
        np.ascontiguousarray(table.order, np.int64),
        np.ascontiguousarray(table.gray),
        np.ascontiguousarray(table.sigma, np.float32),
        np.ascontiguousarray(table.threshold, np.float32),
    )


@lru_cache(maxsize=8)
def _scale_and_shift(normalization: Normalization | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """x becomes scale · x + shift, for each of three channels."""
    if normalization is None:
        return _IDENTITY
    mean, std = normalization
    scale = np.array([1 / deviation for deviation in std], np.float32)
    return scale, np.array([-level / deviation for level, deviation in zip(mean, std, strict=True)], np.float32)


@lru_cache(maxsize=4)
def _threads(count: int) -> Threads:
    return Threads(count, "views")


def _render(
    source: tuple[ImageArrays, ImageArrays, NDArray[np.bool_], int],
    numbers: ViewNumbers,
    size: int,
    threads: int,
    dtype: torch.dtype,
    normalization: Normalization | None,
) -> Tensor:
    views, n = numbers.flip.shape
    pixels, paired_images, odd, stride = source
    # One type of argument, so that the kernel is compiled once: rows of values, in writable memory.
    pixels, paired_images = (
        np.require(p.reshape(*p.shape[:2], 3 * p.shape[2]), requirements="CAW") for p in (pixels, paired_images)
    )
    whole = dtype == torch.float32
    wide = np.empty((views, n, 3 * size * size if whole else 0), np.float32)
    narrow = np.empty((views, n, 0 if whole else 3 * size * size), np.uint16)
    arguments = (pixels, paired_images, odd, stride, numbers, *_scale_and_shift(normalization), size)

    items = views * n
    parts = 1 if threads == 1 else max(1, min(items, max(threads, items * size * size // _SLICE)))
    cuts = [items * k // parts for k in range(parts + 1)]

    def render(part: int) -> None:
        render_slice(*arguments, cuts[part], cuts[part + 1], wide, narrow)

    _threads(threads).share(parts, render)
    out = torch.from_numpy(wide) if whole else torch.from_numpy(narrow).view(torch.bfloat16)
    return out.view(views, n, size, size, 3).permute(0, 1, 4, 2, 3)
