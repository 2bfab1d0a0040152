"""Limits on the work of decoding one image: scans of a JPEG, seconds, and memory."""

import struct
import time
from typing import BinaryIO

import numpy as np
from PIL import Image

from wildfern.ssl.data.base import UnreadableImage

MOST_SCANS = 100  # of a JPEG: programs write about 10, and each passes over the whole image
MOST_SCANNED_PIXELS = 2 * 10**9  # scans times pixels: 22 scans of the largest image
MOST_SECONDS = 30.0  # of computing by the thread that decodes, so that a busy machine skips nothing
SLOW_SECONDS = 5.0  # an image that takes longer is named
_WATCHED = ("JPEG", "MPO", "PNG")  # Pillow reads these piece by piece while it decodes
_SCAN = b"\xff\xda"  # in compressed data a byte 0xff is never followed by this one


class _Watched:
    """A file that ends the decoding of an image with too many scans, or that takes too long."""

    def __init__(self, file: BinaryIO, pixels: int, counts_scans: bool) -> None:
        self._file, self._pixels, self._counts_scans = file, pixels, counts_scans
        self._header = file.tell()  # bytes in which a marker may be part of a thumbnail or a profile
        self._scans, self._last, self._began = 1, b"", time.thread_time()

    def read(self, count: int = -1) -> bytes:
        if time.thread_time() - self._began > MOST_SECONDS:
            raise UnreadableImage(f"took more than {MOST_SECONDS:.0f} s to decode")
        place = self._file.tell() if self._counts_scans else 0
        data = self._file.read(count)
        if self._counts_scans:
            self._count(data, self._header - place)
        return data

    def _count(self, data: bytes, header: int) -> None:
        if header >= len(data):
            return
        self._scans += data.count(_SCAN, max(0, header))
        self._scans += header <= 0 and self._last == _SCAN[:1] and data[:1] == _SCAN[1:]
        self._last = data[-1:]
        if self._scans > MOST_SCANS or self._scans * self._pixels > MOST_SCANNED_PIXELS:
            raise UnreadableImage(
                f"decompression bomb: {self._scans:,} scans or more of {self._pixels:,} pixels; at most {MOST_SCANS} scans, "
                f"and {MOST_SCANNED_PIXELS:,} pixels in all of them, are decoded"
            )

    def seek(self, *place: int) -> int:
        return self._file.seek(*place)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def watch(image: Image.Image) -> None:
    """Let an opened image, whose header was read, raise UnreadableImage while it is decoded if it exceeds the limits."""
    if image.format not in _WATCHED or (image.format != "PNG" and _has_one_scan(image)):
        return
    width, height = image.size
    image.fp = _Watched(image.fp, width * height, image.format != "PNG")  # type: ignore[attr-defined]


def _has_one_scan(image: Image.Image) -> bool:
    """Whether the first scan of a JPEG holds the whole image: decoding ends with it, so that there is nothing to count."""
    if "progressive" in image.info:
        return False
    file, layers = image.fp, getattr(image, "layers", 0)  # type: ignore[attr-defined]
    place = file.tell()  # behind the header of the first scan
    whole = _SCAN + struct.pack(">HB", 6 + 2 * layers, layers)
    file.seek(max(0, place - 8 - 2 * layers))
    start = file.read(len(whole))
    file.seek(place)
    return bool(start == whole)


def is_free(count: int) -> bool:
    """Whether `count` bytes can be allocated."""
    try:
        np.empty(count, np.uint8)
    except MemoryError:
        return False
    return True
