"""What Pillow reads -> uint8[H, W, 3] RGB, or the values as stored.

EXIF orientation is applied; transparency is blended with white, as in browsers; an animation gives its first frame. Embedded
color profiles are not applied.
"""

import errno
import logging
import os
import stat
from collections.abc import Sequence
from functools import cache
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from wildfern.ssl.data.base import ImageArray, UnreadableImage
from wildfern.ssl.data.decoding_limits import watched
from wildfern.ssl.data.resize import within
from wildfern.ssl.data.tiff_image import turned
from wildfern.ssl.data.value_range import RawImage

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "AVIF", "HEIF", "JXL", "PPM")
_PLUGINS = ("pillow_heif", "pillow_jxl")  # packages that add HEIF and JXL
MACHINE_FAULTS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # faults of this process, not of the file
_BITS_PER_SAMPLE, _GDAL_NODATA = 258, 42113

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its remarks on files that tifffile reads go to stderr

# The first bytes of formats that need a package or a newer Pillow: (offset, bytes), what to do.
_HEIC = "a HEIC image, which needs a package: pip install pillow-heif"
_AVIF = "an AVIF image, which this Pillow does not read: pip install --upgrade pillow (11.3 or later)"
_JXL = "a JPEG XL image, which needs a package: pip install pillow-jxl-plugin"
_UNKNOWN = "not an image in a known format"
_FORMAT_OF = {_HEIC: "HEIF", _AVIF: "AVIF", _JXL: "JXL"}
_OTHERS = (
    *(
        (4, b"ftyp" + brand, _HEIC)
        for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
    ),
    *((4, b"ftyp" + brand, _AVIF) for brand in (b"avif", b"avis")),
    (0, b"\xff\x0a", _JXL),
    (0, b"\0\0\0\x0cJXL ", _JXL),
)


class NotIdentified(UnreadableImage):
    """Pillow does not read this file; it may be a TIFF that tifffile reads."""


def opened(file: str | os.PathLike | BinaryIO) -> Image.Image:
    """The image with its header read. Raises NotIdentified, or UnreadableImage with another reason."""
    try:
        if isinstance(file, (str, os.PathLike)):
            status = os.stat(file)
            if not stat.S_ISREG(status.st_mode):  # reading from a pipe would wait forever
                raise UnreadableImage("not a regular file")
            if not status.st_size:
                raise UnreadableImage("empty file")
            size = status.st_size
        else:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
        return Image.open(watched(file, size), formats=_known_formats())
    except (UnreadableImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"decompression bomb: {first_line(error).partition(' exceeds')[0]}", "bomb") from error
    except Image.UnidentifiedImageError as error:
        reason = _named(first_bytes(file))
        raise NotIdentified(reason, "not_an_image" if reason == _UNKNOWN else "unreadable") from error
    except OSError as error:
        if error.errno in MACHINE_FAULTS:
            raise
        raise UnreadableImage(f"cannot be opened: {error.strerror or first_line(error)}") from error
    except Exception as error:
        raise UnreadableImage(f"damaged header: {first_line(error)}") from error


def to_pixels(image: Image.Image, max_side: int | None = None) -> ImageArray:
    """A Pillow image of 8 bits in any mode -> uint8[H, W, 3], upright, its longer side at most `max_side`."""
    target = within(image.size, max_side)
    drafted = image.draft(None, target) if target != image.size else None
    if drafted is not None:  # JPEG decodes at 1/2, 1/4 or 1/8, never below the target
        _, box = drafted  # the decoder rounds sizes up; the box is the exact image
        return np.array(_to_rgb(_upright(image.resize(target, Image.Resampling.BILINEAR, box, reducing_gap=2.0))))
    upright = _to_rgb(_upright(image))
    target = within(upright.size, max_side)
    if target != upright.size:
        upright = upright.resize(target, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.array(upright)


def raw_values(image: Image.Image, bands: Sequence[int] | None) -> RawImage:
    """These bands, counted from 1, as stored; None: gray of more than 8 bits as one band, all else as RGB."""
    if _deep_color(image):
        values = _sixteen_bits(image)
        values = _on_white(values) if bands is None else values[..., [band - 1 for band in bands]]
        return RawImage(values, 16)
    upright = _upright(image)
    if bands is None:
        values = np.asarray(upright if is_deep_gray(upright) else _to_rgb(upright))
    else:
        values = np.asarray(_with_bands(upright))
    values = values.reshape(*values.shape[:2], -1)
    return RawImage(
        values if bands is None else values[..., [band - 1 for band in bands]], _bits(image), _nodata(image)
    )


def is_deep_gray(image: Image.Image) -> bool:
    """Whether it is gray of 16 or 32 bits, or float."""
    return image.mode.startswith(("I", "F"))


def is_deep_color(image: Image.Image) -> bool:
    """Whether it has color of 16 bits, of which Pillow keeps the higher eight."""
    return _deep_color(image) or (image.format == "TIFF" and not is_deep_gray(image) and max(tiff_bits(image)) > 8)


def number_of_bands(image: Image.Image) -> int:
    """Bands that `raw_values` can choose from."""
    if _deep_color(image):  # Pillow opens gray with opacity as RGBA
        return len(str(image.tile[0][3]).partition(";")[0])
    if image.mode in ("P", "PA"):
        return 4 if image.has_transparency_data else 3
    return {"L": 1, "1": 1, "LA": 2, "La": 2, "RGBA": 4, "RGBa": 4}.get(image.mode, 1 if is_deep_gray(image) else 3)


def tiff_bits(image: Image.Image) -> tuple[int, ...]:
    """Bits of each sample of a TIFF file."""
    return tuple(image.tag_v2.get(_BITS_PER_SAMPLE) or (1,))  # type: ignore[attr-defined]


def first_bytes(file: str | os.PathLike | BinaryIO, count: int = 16) -> bytes:
    """The start of the file."""
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened_file:
            return opened_file.read(count)
    file.seek(0)
    return file.read(count)


def readers() -> tuple[str, ...]:
    """The version of Pillow and the formats it reads here, which verdicts on files depend on."""
    return Image.__version__, *_known_formats()


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@cache
def _known_formats() -> tuple[str, ...]:
    """The supported formats that this Pillow was built with (EPS and others would start other programs)."""
    Image.init()
    for package in _PLUGINS:
        try:
            plugin = __import__(package)
        except ImportError:
            continue
        if package == "pillow_heif":
            plugin.register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _named(start: bytes) -> str:
    """Why a file with these first bytes is not read."""
    words = next((words for at, mark, words in _OTHERS if start[at:].startswith(mark)), _UNKNOWN)
    return "truncated or damaged" if _FORMAT_OF.get(words) in _known_formats() else words


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # the pixels may be fine although EXIF cannot be parsed
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _with_bands(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "LA", "RGB", "RGBA") or is_deep_gray(image):
        return image
    if image.mode in ("1", "La"):
        return image.convert("L" if image.mode == "1" else "LA")
    return image.convert("RGBA" if image.mode == "RGBa" or image.has_transparency_data else "RGB")


def _deep_color(image: Image.Image) -> bool:
    """Whether it is a PNG of 16 bits with more than one band."""
    if image.format != "PNG" or image.mode not in ("RGB", "RGBA", "LA") or not image.tile:
        return False
    return ";16" in str(image.tile[0][3])


def _sixteen_bits(image: Image.Image) -> np.ndarray:
    """uint16[H, W, C] of a PNG, upright; Pillow would keep the higher eight bits."""
    import imagecodecs

    image.fp.seek(0)
    values = imagecodecs.png_decode(image.fp.read())
    return turned(values, image.getexif().get(ExifTags.Base.Orientation))


def _on_white(values: np.ndarray) -> np.ndarray:
    """uint16[H, W, C] without its last band if that is opacity (C is 2 or 4), blended with white."""
    if values.shape[2] == 3:
        return values
    alpha = values[..., -1:] / 65535.0
    return np.rint(values[..., :-1] * alpha + 65535.0 * (1 - alpha)).astype(np.uint16)


def _bits(image: Image.Image) -> int | None:
    if image.mode.startswith("I;16"):
        return tiff_bits(image)[0] if image.format == "TIFF" else 16
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # older versions of Pillow read 16 bits so
        return 16
    return None if is_deep_gray(image) else 8


def _nodata(image: Image.Image) -> float | None:
    try:
        return float(image.tag_v2[_GDAL_NODATA])  # type: ignore[attr-defined]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
