"""Crops of images of different sizes: cropped, resized and flipped on the host, to uint8.

Only the crops are copied to a device, as bytes. Pillow makes the same crops at less than half the speed: it copies the image to
four bytes per pixel first, and rounds between its two passes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wildfern.generators.compiling import kernel
from wildfern.ssl.augmentation.crop_geometry import sides
from wildfern.ssl.augmentation.host_loops import host_loop
from wildfern.ssl.augmentation.host_resize import clip, filter_taps, max_taps, resize_across, resize_down
from wildfern.ssl.augmentation.table import AugmentationParameters

ImageArray = NDArray[np.uint8]

_HALF, _1, _255 = np.float32(0.5), np.float32(1), np.float32(255)


def crop_images(
    images: Sequence[ImageArray],
    table: AugmentationParameters,
    size: int,
    paired_images: Sequence[ImageArray] | None = None,
    first: int = 0,
    boxes: NDArray[np.int64] | None = None,
) -> NDArray[np.uint8]:
    """The views' crops of n images uint8[H, W, C], resized and flipped: uint8[V, n, size, size, C].

    With `paired_images` (n of them), odd views show these; the number of the first view is `first`. `boxes` int64[V, n, 4] are by
    default those of the table. Runs on one thread and releases the GIL. Raises ValueError for anything but n images.
    """
    views, n = table.flip.shape
    channels = images[0].shape[-1] if len(images) and images[0].ndim == 3 else 3
    threes = range(0, channels, 3)  # the kernel crops three channels at a time
    outs = [np.empty((views, n, size, 3 * size), np.uint8) for _ in threes]
    shown = [(images, 0, 1)]
    if paired_images is not None:
        shown = [(images, first % 2, 2), (paired_images, 1 - first % 2, 2)]
    for photographs, start, step in shown:
        if len(photographs) != n:
            raise ValueError(f"{n} images are needed, got {len(photographs)}")
        for image in photographs:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels or not image.size:
                raise ValueError(f"images must be uint8[H, W, {channels}], got {image.dtype}{list(image.shape)}")
        own = table.boxes(*sides(list(photographs))) if boxes is None else boxes
        flip, cubic = np.ascontiguousarray(table.flip), table.interpolation == "bicubic"
        for i, image in enumerate(photographs):
            for first_channel, out in zip(threes, outs, strict=True):
                three = image if channels == 3 else image[..., np.minimum(first_channel + np.arange(3), channels - 1)]
                rows = np.require(three.reshape(len(image), -1), requirements="CAW")
                crop_image(rows, i, start, step, own, flip, cubic, out)
    whole = [out.reshape(views, n, size, size, 3) for out in outs]
    return whole[0] if channels == 3 else np.concatenate(whole, axis=-1)[..., :channels]


@host_loop
def _to_bytes(red, green, blue, out):
    """float32[size] of each channel, in [0, 255], to the nearest bytes: uint8[3 * size]."""
    for x in range(np.uint64(red.size)):
        at = np.uint64(3) * x
        out[at] = np.uint8(np.int32(red[x] + _HALF))
        out[at + np.uint64(1)] = np.uint8(np.int32(green[x] + _HALF))
        out[at + np.uint64(2)] = np.uint8(np.int32(blue[x] + _HALF))


@kernel("crops")
def crop_image(sources: int):
    """The kernel that makes the crops of one image."""

    def crop_image(image, i, start, step, boxes, flip, cubic, out):
        """Make views start, start + step … of image i (uint8[H, 3 * W]) by boxes[v, i] (top, left, height, width).

        boxes: int64[V, n, 4], flip: bool[V, n], cubic: bool; out: uint8[V, n, size, 3 * size].
        """
        _ = sources
        views, size = out.shape[0], out.shape[2]
        taps = max_taps(max(image.shape[0], image.shape[1] // 3), size, cubic)
        first_x, first_y = np.empty(size, np.int32), np.empty(size, np.int32)
        weights_x, weights_y = np.empty((taps, size), np.float32), np.empty((taps, size), np.float32)
        sums, packed = np.empty(size, np.float32), np.empty(image.shape[1] // 3 + 1, np.uint32)
        resized, line = np.zeros((taps, 3 * size), np.float32), np.empty(3 * size, np.float32)
        red, green, blue = line[:size], line[size : 2 * size], line[2 * size :]
        for v in range(start, views, step):
            top, left, height, width = boxes[v, i]
            taps_y = filter_taps(height, False, cubic, _1, first_y, weights_y, sums)
            taps_x = filter_taps(width, flip[v, i], cubic, _1, first_x, weights_x, sums)
            ring, seen = resized[:taps_y], 0
            for y in range(size):
                while seen < first_y[y] + taps_y:
                    if seen < height:
                        pixels = image[top + seen, 3 * left : 3 * (left + width)]
                        resize_across(pixels, taps_x, first_x, weights_x, packed, ring[seen % taps_y])
                    else:  # outside of the box, with weight 0
                        ring[seen % taps_y] = 0
                    seen += 1
                resize_down(ring, taps_y, first_y[y], weights_y[:, y], red, green, blue)
                if cubic:
                    clip(line, _255)
                _to_bytes(red, green, blue, out[v, i, y])

    return crop_image
