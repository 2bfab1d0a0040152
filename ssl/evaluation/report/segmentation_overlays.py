"""Some images of a stream with what a segmentation found and missed in them, as small JPEG files."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wildfern.ssl.evaluation.evaluator import MaskedImage
from wildfern.ssl.evaluation.report.images import MOST_BYTES
from wildfern.ssl.evaluation.report.segmentation_arrays import MOST_OVERLAYS
from wildfern.ssl.segmentation.overlay import comparison

SIDE = 400  # pixels of an overlay's longer side
OPACITY = 0.75  # of the colors, in an image that keeps its size
QUALITIES = (85, 70, 50, 30, 10)  # of JPEG: the first whose file is small enough


class SpreadOverlays:
    """Overlays of at most 8 images, spread evenly over a stream whose length is not known; never more than 16 are kept."""

    def __init__(self) -> None:
        self._seen, self._every = 0, 1
        self._kept: list[tuple[int, float, bytes]] = []

    def add(
        self,
        image: MaskedImage,
        predicted: NDArray[np.bool_],
        region: NDArray[np.bool_] | None,
        dice: float,
    ) -> None:
        """The next image of the stream, with its predicted mask bool[H, W] and where it is compared (None: everywhere)."""
        number, self._seen = self._seen, self._seen + 1
        if number % self._every:
            return
        if len(self._kept) == 2 * MOST_OVERLAYS:  # every second one remains, of which `number` is the next
            self._kept, self._every = self._kept[::2], 2 * self._every
        # Thin lines in a large image mix with what is beside them when it is made smaller.
        opacity = OPACITY if max(image.mask.shape) <= SIDE else 1.0
        shown = comparison(image.pixels, predicted, image.mask, region, opacity=opacity)
        self._kept.append((image.item, dice, small_jpeg(shown)))

    def spread(self) -> tuple[NDArray[np.int64], NDArray[np.float32], tuple[bytes, ...]]:
        """Items int64[k], Dice float32[k] and overlays of the images, in the order of the stream."""
        count = len(self._kept)
        places = np.linspace(0, count - 1, min(count, MOST_OVERLAYS)).round().astype(int)
        items, dice, files = zip(*(self._kept[place] for place in places), strict=True) if count else ((), (), ())
        return np.array(items, np.int64), np.array(dice, np.float32), tuple(files)


def small_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """An image uint8[H, W, 3] as JPEG of at most 64 KiB, its longer side at most `SIDE` pixels, thin lines in full color."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = SIDE / max(image.size)
    if scale < 1:
        sides = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(sides, Image.Resampling.BOX)
    for quality in QUALITIES:
        content = io.BytesIO()
        image.save(content, "jpeg", quality=quality, subsampling=0)
        if content.tell() <= MOST_BYTES:
            break
    return content.getvalue()
