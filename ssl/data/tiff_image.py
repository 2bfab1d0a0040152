"""TIFF files of any number of bands and any data type, by tifffile: what Pillow does not read."""

import io
import logging
import os
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wildfern.ssl.data.base import UnreadableImage
from wildfern.ssl.data.value_range import RawImage

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MIN_IS_WHITE, MIN_IS_BLACK, RGB = 0, 1, 2
_IMAGE_CODECS = {6, 7, 34892, 33003, 33004, 33005, 34712, 34927, 50001, 34933}  # JPEG, JPEG 2000, WebP and PNG
_CODEC_FORMATS = ("JPEG", "JPEG2000", "WEBP", "PNG")
_ORIENTATION, _GDAL_NODATA = 274, 42113


class TiffImage:
    """An opened TIFF file; a context manager. Bands are the samples of its first page, or its pages of one sample each.

    Pages count as bands if all have one size and type; smaller copies of the image do not count. `size` is (width, height),
    `pages` the number of pages that count as bands. Raises UnreadableImage.
    """

    def __init__(self, file: str | os.PathLike | BinaryIO) -> None:
        import tifffile

        logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its remarks on tags would go to stderr
        if not isinstance(file, str | os.PathLike):
            file.seek(0)
        self._tiff = tifffile.TiffFile(file)
        try:
            self._pages = self._bands_of_pages()
            self._first: Any = self._tiff.pages[0]
            planes, depth, height, width, samples = map(int, self._first.shaped)  # raises for a damaged header
            self.photometric, self._bits = int(self._first.photometric), int(self._first.bitspersample)
            self.size = (width, height)
            self.pages, self.samples = len(self._pages), planes * depth * samples
            self.bands: int = self.pages * self.samples
            self.dtype = self._first.dtype
            if self.dtype is None or self.dtype.kind not in "buif":
                raise UnreadableImage(f"pixels of the type {self.dtype}; numbers are needed")
        except BaseException:
            self._tiff.close()
            raise

    def __enter__(self) -> "TiffImage":
        return self

    def __exit__(self, *_: object) -> None:
        self._tiff.close()

    @property
    def is_color(self) -> bool:
        """Whether the first three samples are red, green and blue."""
        return self.samples == 3 or (self.photometric == RGB and self.samples > 3)

    def read(self, bands: Sequence[int] | None) -> RawImage:
        """These bands, counted from 1; None: the first page, of which a color image gives three samples."""
        if bands is not None and self.pages > 1:
            values = np.concatenate([self._read(self._pages[band - 1]) for band in bands], axis=2)
        else:
            values = self._read(self._first)
            chosen = range(3 if self.is_color else self.samples) if bands is None else [band - 1 for band in bands]
            values = values[..., list(chosen)]
        kind, used = values.dtype.kind, self._bits
        bits = used if kind == "u" and used <= 16 else 1 if kind == "b" else None
        if self.photometric == MIN_IS_WHITE and kind == "u":
            values = (2**used - 1) - values
        return RawImage(turned(values, self._tag(_ORIENTATION)), bits, self._nodata())

    def _bands_of_pages(self) -> list[Any]:
        pages = [page for page in self._tiff.pages if not page.is_reduced]
        first = self._tiff.pages[0]
        alike = all(page.shaped == first.shaped and page.dtype == first.dtype for page in pages)
        return pages if alike and first.shaped[0] * first.shaped[4] == 1 else [first]

    def _read(self, page: Any) -> NDArray:
        """[H, W, planes · samples] of one page."""
        end = self._tiff.filehandle.size
        if any(offset + count > end for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)):
            raise UnreadableImage("truncated or damaged: the file ends before its pixels")
        if int(page.compression) in _IMAGE_CODECS:
            self._check_segments(page)
        try:
            values = page.asarray(squeeze=False)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            name = getattr(page.compression, "name", page.compression)
            raise UnreadableImage(f"compressed by {name}, which needs a package: pip install imagecodecs") from error
        planes, depth, height, width, samples = values.shape
        return values.transpose(2, 3, 0, 1, 4).reshape(height, width, planes * depth * samples)

    def _check_segments(self, page: Any) -> None:
        """Refuse strips and tiles that are images of their own and far larger than their place in the page."""
        most = 4 * int(np.prod(page.chunks[:3], dtype=np.int64)) + 2**20
        file = self._tiff.filehandle
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            file.seek(offset)
            try:
                with Image.open(io.BytesIO(file.read(min(count, 2**16))), formats=_CODEC_FORMATS) as segment:
                    width, height = segment.size
            except Image.DecompressionBombError:
                width = height = 2**16
            except Exception:  # the decoder finds the damage
                continue
            if width * height > most:
                raise UnreadableImage(f"decompression bomb: a strip or tile that claims {width} x {height} pixels")

    def _tag(self, code: int) -> Any:
        tag = self._first.tags.get(code)
        return None if tag is None else tag.value

    def _nodata(self) -> float | None:
        try:
            return float(self._tag(_GDAL_NODATA))
        except (TypeError, ValueError):
            return None


def turned(values: NDArray, orientation: object) -> NDArray:
    """[H, W, C] upright, by the values of the tag of TIFF and EXIF."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values
