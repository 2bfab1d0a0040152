"""Images of other programs as the tensors that an evaluation gives to its backbone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wildfern.ssl.data.base import ImageArray
from wildfern.ssl.data.pillow_image import is_deep_gray, number_of_bands, raw_values, to_pixels
from wildfern.ssl.evaluation.preprocessing import Preprocessing, normalized, resize_center_crop

ImageLike = Image.Image | np.ndarray | Tensor
KINDS = "a Pillow image, numpy uint8[H, W, C], torch uint8[C, H, W], or a list of these"


@dataclass(frozen=True)
class ImageTransform:
    """`resize_center_crop`, normalization and `then`, on the CPU: an image -> float32[C, S, S], several -> float32[N, C, S, S].

    An image is a Pillow image, a numpy array uint8[H, W] or uint8[H, W, C], or a torch tensor uint8[H, W] or uint8[C, H, W].
    Several are a list of images, or an array or a tensor with another dimension in front. Pillow images become pixels as files of
    a data set do (EXIF orientation, transparency on white, 16 bits scaled to 8); gray is repeated where `channels` is 3.

    Images of one shape are resized together, those of several shapes one by one with Pillow, as in an evaluation: a list gives
    what the evaluation of a data set of these images computes. Raises ValueError for other types and numbers of channels.
    """

    preprocessing: Preprocessing
    channels: int = 3
    then: Callable[[Tensor], Tensor] | None = None  # of the normalized images float32[N, channels, S, S]

    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> Tensor:
        settings = self.preprocessing
        pixels, single = self._pixels(images)
        x = resize_center_crop(pixels, settings.size, "cpu", settings.interpolation)
        x = normalized(x, settings.mean, settings.std)
        with torch.no_grad():
            x = x if self.then is None else self.then(x)
        return x[0] if single else x

    def _pixels(self, images: Any) -> tuple[np.ndarray | list[ImageArray], bool]:
        """uint8[N, H, W, C] or a list of uint8[H, W, C], and whether it is a single image."""
        if isinstance(images, list | tuple):
            if not images:
                raise ValueError("there are no images to transform")
            return [self._one(image) for image in images], False
        if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
            if not len(images):
                raise ValueError("there are no images to transform")
            channels_last = images if isinstance(images, np.ndarray) else images.permute(0, 2, 3, 1)
            return np.stack([self._checked(np.asarray(image)) for image in channels_last]), False
        return [self._one(images)], True

    def _one(self, image: Any) -> ImageArray:
        if isinstance(image, Image.Image):
            return self._of_pillow(image)
        if isinstance(image, Tensor):
            image = image.detach().cpu()
            return self._checked((image.permute(1, 2, 0) if image.ndim == 3 else image).numpy())
        if isinstance(image, np.ndarray):
            return self._checked(image)
        raise ValueError(f"an image is {KINDS}; got {type(image).__name__}")

    def _checked(self, pixels: np.ndarray) -> ImageArray:
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            hint = "; scale [0, 1] to 0 … 255 and round" if pixels.dtype.kind == "f" else ""
            raise ValueError(f"an image is {KINDS}; got {pixels.dtype}{list(pixels.shape)}{hint}")
        if pixels.size == 0:
            raise ValueError(f"an image of shape {list(pixels.shape)} has no pixels")
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if pixels.shape[2] == 1 and self.channels == 3:
            pixels = np.repeat(pixels, 3, axis=2)
        if pixels.shape[2] != self.channels:
            raise ValueError(f"an image has {pixels.shape[2]} channels, but this backbone takes {self.channels}")
        return pixels

    def _of_pillow(self, image: Image.Image) -> ImageArray:
        if 0 in image.size:
            raise ValueError(f"an image of {image.width} × {image.height} pixels has none")
        if self.channels == 3 and not is_deep_gray(image):
            return to_pixels(image)
        bands = number_of_bands(image)
        if self.channels not in (3, bands):
            raise ValueError(
                f"an image of mode {image.mode} has {bands} bands, but this backbone takes {self.channels}: convert it, or give "
                "numpy uint8[H, W, C]"
            )
        raw = raw_values(image, None if is_deep_gray(image) else tuple(range(1, bands + 1)))
        return self._checked(raw.to_bytes((raw.own_range(),) * raw.values.shape[2]))
