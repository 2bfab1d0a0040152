"""Any image file -> uint8[H, W, C], RGB or chosen bands, or UnreadableImage with the reason."""

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, BinaryIO, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from wildfern.ssl.data import pillow_image
from wildfern.ssl.data.base import DataError, Fault, ImageArray, UnreadableImage
from wildfern.ssl.data.decoding_limits import SLOW_SECONDS, is_free, watch
from wildfern.ssl.data.header_size import plain_size
from wildfern.ssl.data.resize import resize, within
from wildfern.ssl.data.tiff_image import MIN_IS_BLACK, MIN_IS_WHITE, RGB, SIGNATURES, TiffImage
from wildfern.ssl.data.tiff_pages import count_pages
from wildfern.ssl.data.value_range import Range, RawImage, checked_ranges, percentile_range

PIXEL_LIMIT = 89_478_485  # Pillow's limit against decompression bombs: a quarter of a GiB as RGB
# The one list of file names with images: of folders, shards and columns. TGA is left out, as its files have no signature.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".avif", ".heic", ".heif", ".hif", ".jxl"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
_BYTES_PER_PIXEL = 16  # of the limit: four bands of 32 bits
_PHOTOMETRIC, _SAMPLE_FORMAT, _UNSIGNED = 262, 339, 1
_SAMPLES, _PLANAR, _SEPARATE = 277, 284, 2
_PERCENTILES = (0.5, 99.5)

File = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO
Bands = tuple[Annotated[int, Field(ge=1)], ...]
ValueRange = Range | tuple[Range, ...] | Literal["image", "dataset"]
Percent = Annotated[float, Field(ge=0, le=100)]
Percentiles = tuple[Percent, Percent]
Remark = Callable[[str, str], None]  # gets the kind of a remark and a message about the image


@dataclass(frozen=True)
class Decoding:
    """How the images of a source are read.

    - max_side: shrink images to this longer side (None: full size); JPEG mostly while decoding, several times faster.
    - min_side: refuse images whose shorter side has fewer pixels.
    - bands: these bands of every image, in this order, numbered from 1 as by GDAL: [3, 2, 1] gives uint8[H, W, 3]. Any number of
      bands is possible. The pages of a gray TIFF count as bands, if they have one size. None: RGB, gray is repeated.
    - value_range: [low, high], which become 0 and 255 (or one such range for each band); "image": the `percentiles` of each
      image; "dataset": those of a fixed sample of all images. None: 8 bits are kept, 16 bits are scaled from 0 … 65535, and other
      types from the smallest range that holds the image and [0, 1] (float) or [0, 255] (integers). Values that are NaN, infinite
      or marked as without data are ignored and become 0.
    - percentiles: of the values, for "image" and "dataset"; None: 0.5 and 99.5.

    An image may have 89,478,485 pixels (or bands in its pages, as many values as four bands of that), 16 bytes for each of
    these pixels as stored, and 10,000 pages; a JPEG 100 scans. Decoding takes at most about three times the stored values in
    memory, and is ended after 30 s of computing where Pillow can be ended (JPEG, PNG, GIF, BMP, PPM).

    Raises DataError for settings that are impossible or do not fit together.
    """

    max_side: int | None = None
    min_side: int = 1
    bands: tuple[int, ...] | None = None
    value_range: ValueRange | None = None
    percentiles: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.bands is not None and (not self.bands or min(self.bands) < 1):
            raise DataError(f"bands must name one band or more, numbered from 1; got {list(self.bands)}")
        automatic = self.value_range in ("image", "dataset")
        if isinstance(self.value_range, str) and not automatic:
            raise DataError(f"value_range must be [low, high], image or dataset, got {self.value_range!r}")
        if self.value_range is not None and not automatic:
            checked_ranges(self.value_range, self.channels)
        if self.percentiles is not None:
            low, high = self.percentiles
            if not automatic:
                raise DataError("percentiles are for value_range: image or dataset, which is not set")
            if not 0 <= low < high <= 100:
                raise DataError(f"percentiles must be [low, high], from 0 to 100, got {list(self.percentiles)}")

    @property
    def channels(self) -> int:
        """C of the images uint8[H, W, C]."""
        return 3 if self.bands is None else len(self.bands)

    def decode(self, file: File, remark: Remark | None = None, pixel_limit: int = PIXEL_LIMIT) -> ImageArray:
        """One image, uint8[H, W, C]; raises UnreadableImage. `remark` gets what the user should know about the image."""
        began = time.perf_counter()
        with _enough_memory():
            pixels = self._decoded(file, remark, pixel_limit)
        if remark is not None and (seconds := time.perf_counter() - began) > SLOW_SECONDS:
            remark("slow", f"took {seconds:.0f} s to decode; training waits for such images: shrink them once")
        return pixels

    def _decoded(self, file: File, remark: Remark | None, pixel_limit: int) -> ImageArray:
        with self._opened(file, pixel_limit) as image, _damage():
            if isinstance(image, Image.Image):
                if remark is not None and self.bands is None and image.format == "TIFF":
                    _remark_on_pages(count_pages(image.fp), remark, pillow_image.number_of_bands(image) == 1)
                if self.value_range is None and self.bands is None and not pillow_image.is_deep_gray(image):
                    deep = remark is not None and pillow_image.is_deep_color(image)
                    pixels = pillow_image.to_pixels(image, self.max_side)
                    if deep and remark is not None:
                        _remark_on_dark_color(pixels, remark)
                    return pixels
            elif remark is not None and self.bands is None:
                _remark_on_pages(image.pages, remark, gray=True)
            raw = self._raw(image)
            raw.checked_extremes()
            ranges = self._ranges(raw)
            if remark is not None:
                for kind, message in raw.remarks(ranges, given=self.value_range is not None):
                    remark(kind, message)
            pixels = raw.to_bytes(ranges)
        if self.bands is None and pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        height, width = pixels.shape[:2]
        target = within((width, height), self.max_side)
        return pixels if target == (width, height) else resize(pixels, target, reducing_gap=2.0)

    def raw(self, file: File, pixel_limit: int = PIXEL_LIMIT) -> RawImage:
        """The values that `decode` would scale: chosen bands, RGB, or one band of gray. Raises UnreadableImage."""
        with _enough_memory(), self._opened(file, pixel_limit) as image, _damage():
            return self._raw(image)

    def size(self, file: File, pixel_limit: int = PIXEL_LIMIT) -> tuple[int, int]:
        """(width, height) as stored, from the header alone; raises UnreadableImage like `decode`, except for truncation."""
        with _enough_memory(), self._opened(file, pixel_limit) as image:
            return image.size

    def header_size(self, path: str | os.PathLike[str]) -> tuple[int, int]:
        """`size` of a file, without Pillow if its header is plain: for the check of many files."""
        plain = plain_size(path) if self.bands is None else None
        if plain is None or plain[0] * plain[1] > PIXEL_LIMIT:
            return self.size(path)
        _check_size(plain, self.min_side, PIXEL_LIMIT)
        return plain

    def with_range_of(self, images: Iterable[RawImage]) -> "Decoding":
        """The same with the percentiles of these images as its range; unchanged if they have no values."""
        samples = [values for image in images for values in image.sampled(2**16)]
        found = percentile_range(samples, self.percentiles or _PERCENTILES)
        return self if found is None else replace(self, value_range=found, percentiles=None)

    def _raw(self, image: Image.Image | TiffImage) -> RawImage:
        return image.read(self.bands) if isinstance(image, TiffImage) else pillow_image.raw_values(image, self.bands)

    def _ranges(self, raw: RawImage) -> tuple[Range, ...]:
        """The range of each band of this image."""
        channels = raw.values.shape[2]
        if self.value_range is None:
            return (raw.own_range(),) * channels
        if isinstance(self.value_range, str):
            found = percentile_range(raw.sampled(), self.percentiles or _PERCENTILES)
            return ((0.0, 1.0) if found is None else found,) * channels
        return checked_ranges(self.value_range, self.channels)[:channels]

    @contextmanager
    def _opened(self, file: File, pixel_limit: int) -> Iterator[Image.Image | TiffImage]:
        """The file, its header read and checked."""
        if isinstance(file, (bytes, bytearray, memoryview)):
            if not len(file):
                raise UnreadableImage("empty file")
            file = io.BytesIO(file)
        try:
            image: Image.Image | None = pillow_image.opened(file)
        except pillow_image.NotIdentified:
            image = None
            with _damage("cannot be opened", "unreadable"):
                if pillow_image.first_bytes(file, 4) not in SIGNATURES:
                    raise
        with _damage("damaged header", "unreadable"):
            by_pillow = image is not None and not self._better_by_tifffile(image)
        if image is not None and by_pillow:
            with image:
                _check_size(image.size, self.min_side, pixel_limit)
                watch(image)
                if self.bands is not None:
                    self._check_bands(pillow_image.number_of_bands(image))
                yield image
            return
        with _damage("damaged header", "unreadable"):
            count_pages(file)
            tiff = TiffImage(file)
        with tiff:
            read_bands = tiff.samples if self.bands is None or tiff.pages == 1 else len(self.bands)
            _check_size(tiff.size, self.min_side, pixel_limit, tiff.bands, read_bands * tiff.dtype.itemsize)
            if self.bands is not None:
                self._check_bands(tiff.bands)
            elif tiff.samples != 1 and not tiff.is_color:
                raise UnreadableImage(_choose(tiff))
            yield tiff

    def _better_by_tifffile(self, image: Image.Image) -> bool:
        """Whether it is a TIFF file of which Pillow would not give all bands or all bits."""
        if image.format != "TIFF" or image.tag_v2.get(_PHOTOMETRIC) not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB):  # type: ignore[attr-defined]
            return False
        bits, formats = max(pillow_image.tiff_bits(image)), image.tag_v2.get(_SAMPLE_FORMAT) or (_UNSIGNED,)  # type: ignore[attr-defined]
        planes = image.tag_v2.get(_SAMPLES, 1) if image.tag_v2.get(_PLANAR) == _SEPARATE else 1  # type: ignore[attr-defined]
        if planes > 1 and image.tag_v2[_PHOTOMETRIC] != RGB:  # type: ignore[attr-defined]
            return True
        if self.bands is not None or bits > 16 or set(formats) != {_UNSIGNED}:
            return True
        return self.value_range is not None and bits > 8

    def _check_bands(self, there: int) -> None:
        if self.bands is not None and max(self.bands) > there:
            raise UnreadableImage(
                f"has {there} band{'s' * (there > 1)}, but bands names {max(self.bands)} (the first band is 1)"
            )


def decode_image(
    file: File, *, min_side: int = 1, max_side: int | None = None, pixel_limit: int = PIXEL_LIMIT
) -> ImageArray:
    """One image, uint8[H, W, 3]; see `Decoding`. Raises UnreadableImage, also for a shorter side below `min_side`."""
    return Decoding(max_side, min_side).decode(file, pixel_limit=pixel_limit)


def image_size(file: File, *, min_side: int = 1, pixel_limit: int = PIXEL_LIMIT) -> tuple[int, int]:
    """(width, height) as stored, from the header alone; raises UnreadableImage like `decode_image`, except for truncation."""
    return Decoding(min_side=min_side).size(file, pixel_limit)


@contextmanager
def _damage(what: str = "truncated or damaged", fault: Fault = "truncated") -> Iterator[None]:
    """Turn the errors of decoders, which raise any exception for damaged data, into UnreadableImage."""
    try:
        yield
    except (UnreadableImage, MemoryError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in pillow_image.MACHINE_FAULTS:
            raise
        raise UnreadableImage(f"{what}: {pillow_image.first_line(error)}", fault) from error


@contextmanager
def _enough_memory() -> Iterator[None]:
    """An image that claims absurd sizes is unreadable; a machine that is short of memory is an error."""
    try:
        yield
    except MemoryError as error:
        if not is_free(_BYTES_PER_PIXEL * PIXEL_LIMIT):
            raise
        raise UnreadableImage("needs more memory than there is, as a damaged file may claim") from error


def _check_size(size: tuple[int, int], min_side: int, pixel_limit: int, bands: int = 1, bytes_each: int = 1) -> None:
    width, height = size
    if width * height > pixel_limit:
        raise UnreadableImage(f"decompression bomb: {width} x {height} pixels, more than {pixel_limit:,}", "bomb")
    if bands > 4 and width * height * bands > 4 * pixel_limit:
        raise UnreadableImage(
            f"decompression bomb: {width} x {height} pixels of {bands} bands, more than {4 * pixel_limit:,} values",
            "bomb",
        )
    if width * height * bytes_each > _BYTES_PER_PIXEL * pixel_limit:
        raise UnreadableImage(
            f"decompression bomb: {width} x {height} pixels of {bytes_each} bytes, more than "
            f"{_BYTES_PER_PIXEL * pixel_limit:,} bytes",
            "bomb",
        )
    if min(size) < min_side:
        raise UnreadableImage(f"too small: {width} x {height}, the shorter side must be {min_side} or more")


def _choose(tiff: TiffImage) -> str:
    every = f"bands: {list(range(1, tiff.bands + 1))}" if tiff.bands <= 13 else f"bands: [1, …, {tiff.bands}]"
    example = f"three: bands: [3, 2, 1], or all: {every}" if tiff.bands > 2 else f"both: {every}, or one: bands: [1]"
    return f"has {tiff.bands} bands of {tiff.dtype.name}; choose {example} (the first band is 1)"


def _remark_on_pages(pages: int, remark: Remark, gray: bool) -> None:
    if pages > 1:
        hint = "with bands, pages of one size are its bands" if gray else "store each as a file to read all"
        remark("pages", f"has {pages} pages, of which the first is read; {hint}")


def _remark_on_dark_color(pixels: ImageArray, remark: Remark) -> None:
    most = 256 * (int(pixels.max(initial=0)) + 1) - 1
    if 256 <= most <= 2**12 - 1 and pixels.max() > pixels.min():
        remark(
            "dark",
            f"uses at most 0 … {most:,} of 16 bits; set value_range: [0, 4095], or image or dataset (percentiles)",
        )
