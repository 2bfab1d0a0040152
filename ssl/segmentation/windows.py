"""The probability map of a whole image from overlapping windows (overlap-tile strategy: Ronneberger et al., 2015, fig. 2)."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wildfern.ssl.data.resize import resize
from wildfern.ssl.evaluation.preprocessing import Precision, normalized

MOST_OVERLAP = 0.95


def probability_map(
    segment: Callable[[Tensor], Tensor],
    image: NDArray[np.uint8],
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    overlap: float = 0.5,
    scale: float = 1.0,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    done: Callable[[int, int], None] = lambda windows, total: None,
) -> NDArray[np.float32]:
    """The probability of the object in each pixel of `image` uint8[H, W, C] or gray [H, W], as float32[H, W] in [0, 1].

    - segment: normalized windows float32[N, C, size, size] on `device` -> logits float[N, size, size]; in evaluation mode.
    - mean, std: of each channel, in [0, 1]. A gray image is repeated to three channels if there are three.
    - overlap: the part of its side, in [0, 0.95], that a window shares with the next one, or more.
    - scale: the image is resized by it first, anti-aliased; the map is resized back to [H, W].
    - done: gets the number of windows that are done, and of all, after each batch.

    Windows are spread evenly from border to border; an image smaller than `size` is padded by reflection on both sides. Where
    windows overlap, their probabilities are averaged by `blending_weights`. Beside the windows of a batch, there is one map of
    the resized image. Raises ValueError for other shapes and ranges.
    """
    _check(size, overlap, scale, batch_size, mean, std)
    pixels = _channels(image, len(mean))
    height, width = pixels.shape[:2]
    if scale != 1:
        pixels = resize(pixels, (max(1, round(width * scale)), max(1, round(height * scale))))
    padded, top, left = _padded(pixels, size)
    rows, columns = (_placed(side, size, overlap) for side in padded.shape[:2])
    total = np.zeros(padded.shape[:2], np.float32)
    grid = [(row, column) for row in rows for column in columns]
    for first in range(0, len(grid), batch_size):
        batch = grid[first : first + batch_size]
        windows = np.stack([padded[y : y + size, x : x + size] for (y, _), (x, _) in batch])
        found = _probabilities(segment, windows, mean, std, torch.device(device), precision)
        for ((y, row_weights), (x, column_weights)), probabilities in zip(batch, found, strict=True):
            probabilities *= row_weights[:, None]
            probabilities *= column_weights
            total[y : y + size, x : x + size] += probabilities
        done(first + len(batch), len(grid))
    total = total[top : top + pixels.shape[0], left : left + pixels.shape[1]]
    if scale != 1:
        total = np.array(Image.fromarray(total).resize((width, height), Image.Resampling.BILINEAR))
    return np.clip(total, 0, 1, out=np.ascontiguousarray(total))  # sums of weights are 1 but for rounding


def window_starts(side: int, size: int, overlap: float) -> NDArray[np.int64]:
    """First pixels of windows of `size` along a `side` of at least that: the fewest of this overlap, evenly spread, int64[n]."""
    step = max(1, round(size * (1 - overlap)))
    steps = -(-(side - size) // step)
    return np.arange(steps + 1) * (side - size) // max(1, steps)


def blending_weights(starts: Sequence[int] | NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Weight of each pixel of each window along one side, float64[n, size], each above 0; those of one pixel add up to 1.

    A Hann window at the centers of its pixels, sin²(π (i + ½) / size), divided by the sum over the windows of the pixel. A window
    of the map weighs the product of its weights along both sides.
    """
    hann = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    sums = np.zeros(int(starts[-1]) + size)
    for start in starts:
        sums[start : start + size] += hann
    return np.stack([hann / sums[start : start + size] for start in starts])


def _placed(side: int, size: int, overlap: float) -> list[tuple[int, NDArray[np.float32]]]:
    """Start and weights of each window along one side."""
    starts = window_starts(side, size, overlap)
    weights = blending_weights(starts, size).astype(np.float32)
    return [(int(start), row) for start, row in zip(starts, weights, strict=True)]


def _probabilities(
    segment: Callable[[Tensor], Tensor],
    windows: NDArray[np.uint8],
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    precision: Precision,
) -> NDArray[np.float32]:
    """uint8[N, size, size, C] -> float32[N, size, size] that may be written to."""
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        images = torch.from_numpy(windows).to(device).permute(0, 3, 1, 2).float().div_(255)
        logits = segment(normalized(images, mean, std))
        if logits.shape != windows.shape[:3]:
            raise ValueError(f"segment returns logits {list(windows.shape[:3])}, got {list(logits.shape)}")
        return logits.float().sigmoid().numpy(force=True)


def _channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """As uint8[H, W, channels]."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"an image is uint8[H, W, C] or [H, W], got {image.dtype}{list(image.shape)}")
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.shape[2] == 1 and channels == 3:
        pixels = pixels.repeat(3, axis=2)
    if pixels.shape[2] != channels:
        raise ValueError(f"an image of {pixels.shape[2]} channels, but mean is of {channels}")
    return pixels


def _padded(pixels: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], int, int]:
    """At least `size` high and wide, and where its top left pixel is in that. A side of one pixel is repeated."""
    missing = [max(0, size - side) for side in pixels.shape[:2]]
    around = [(each // 2, each - each // 2) for each in missing]
    return np.pad(pixels, (*around, (0, 0)), "reflect") if any(missing) else pixels, around[0][0], around[1][0]


def _check(
    size: int, overlap: float, scale: float, batch_size: int, mean: Sequence[float], std: Sequence[float]
) -> None:
    wrong = []
    if size < 1 or batch_size < 1:
        wrong.append(f"size and batch_size are 1 or more, got {size} and {batch_size}")
    if not 0 <= overlap <= MOST_OVERLAP:
        wrong.append(f"overlap is in [0, {MOST_OVERLAP}], got {overlap}")
    if not (scale > 0 and math.isfinite(scale)):
        wrong.append(f"scale is above 0, got {scale}")
    if len(mean) != len(std):
        wrong.append(f"mean and std are of one length, got {len(mean)} and {len(std)}")
    if wrong:
        raise ValueError("; ".join(wrong))
