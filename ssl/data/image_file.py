"""Any image file -> uint8[H, W, 3] RGB, or UnreadableImage with the reason.

EXIF orientation is applied; transparency is blended with white, as in browsers; 16-bit and float images are scaled to 8 bits;
an animation gives its first frame. Embedded color profiles are not applied.
"""

import errno
import io
import os
from functools import cache
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from wildfern.ssl.data.base import ImageArray, UnreadableImage

PIXEL_LIMIT = 89_478_485  # Pillow's limit against decompression bombs: a quarter of a GiB as RGB
EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".jfif",
    ".jp2",
    ".avif",
    ".ppm",
    ".pgm",
)
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM")
_MACHINE_FAULTS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # faults of this process, not of the file

File = str | os.PathLike | bytes | memoryview | BinaryIO


def decode_image(
    file: File, *, min_side: int = 1, max_side: int | None = None, pixel_limit: int = PIXEL_LIMIT
) -> ImageArray:
    """One image, uint8[H, W, 3].

    An image with a longer side above `max_side` is shrunk to it (JPEG: mostly while decoding, several times faster). Raises
    UnreadableImage, also for a shorter side below `min_side`.
    """
    with _opened(file) as image:
        _check_size(image.size, min_side, pixel_limit)
        try:
            return to_pixels(image, max_side)
        except (UnreadableImage, MemoryError):
            raise
        except Exception as error:  # decoders raise any exception for damaged data
            raise UnreadableImage(f"truncated or damaged: {_first_line(error)}") from error


def image_size(file: File, *, min_side: int = 1, pixel_limit: int = PIXEL_LIMIT) -> tuple[int, int]:
    """(width, height) as stored, from the header alone; raises UnreadableImage like `decode_image`, except for truncation."""
    with _opened(file) as image:
        _check_size(image.size, min_side, pixel_limit)
        return image.size


def to_pixels(image: Image.Image, max_side: int | None = None) -> ImageArray:
    """A Pillow image of any mode -> uint8[H, W, 3], upright, its longer side at most `max_side`."""
    target = _within(image.size, max_side)
    drafted = image.draft(None, target) if target != image.size else None
    if drafted is not None:  # JPEG decodes at 1/2, 1/4 or 1/8, never below the target
        _, box = drafted  # the decoder rounds sizes up; the box is the exact image
        return np.array(_to_rgb(_upright(image.resize(target, Image.Resampling.BILINEAR, box, reducing_gap=2.0))))
    upright = _to_rgb(_upright(image))
    target = _within(upright.size, max_side)
    if target != upright.size:
        upright = upright.resize(target, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.array(upright)


def _opened(file: File) -> Image.Image:
    if isinstance(file, (bytes, bytearray, memoryview)):
        if not len(file):
            raise UnreadableImage("empty file")
        file = io.BytesIO(file)
    try:
        if isinstance(file, (str, os.PathLike)) and os.stat(file).st_size == 0:
            raise UnreadableImage("empty file")
        return Image.open(file, formats=_known_formats())
    except (UnreadableImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"decompression bomb: {_first_line(error).partition(' exceeds')[0]}") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage("not an image in a known format") from error
    except OSError as error:
        if error.errno in _MACHINE_FAULTS:
            raise
        raise UnreadableImage(f"cannot be opened: {error.strerror or _first_line(error)}") from error
    except Exception as error:
        raise UnreadableImage(f"damaged header: {_first_line(error)}") from error


@cache
def _known_formats() -> tuple[str, ...]:
    """The supported formats that this Pillow was built with (EPS and others would start other programs)."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _check_size(size: tuple[int, int], min_side: int, pixel_limit: int) -> None:
    width, height = size
    if width * height > pixel_limit:
        raise UnreadableImage(f"decompression bomb: {width} x {height} pixels, more than {pixel_limit:,}")
    if min(size) < min_side:
        raise UnreadableImage(f"too small: {width} x {height}, the shorter side must be {min_side} or more")


def _within(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    if max_side is None or max(size) <= max_side:
        return size
    scale = max_side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # the pixels may be fine although EXIF cannot be parsed
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Gray of 16 or 32 bits, or float: full scale is 1 (float), 255 or 65535, the smallest that covers the brightest pixel."""
    values = np.asarray(image).astype(np.float64)
    brightest = values.max(initial=0.0)
    if image.mode.startswith("I;16"):
        scale = 65535.0
    elif image.mode == "F" and brightest <= 1.0:
        scale = 1.0
    else:
        scale = next((full for full in (255.0, 65535.0) if brightest <= full), brightest)
    return Image.fromarray(np.clip(np.rint(np.nan_to_num(values) * (255.0 / scale)), 0, 255).astype(np.uint8))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
