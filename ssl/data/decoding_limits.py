"""Limits on the work of decoding one image: scans of a JPEG, seconds, and memory."""

import os
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
_SCAN = b"\xff\xda"  # in compressed data a byte 0xff is never followed by this one
# The first bytes of formats that Pillow reads piece by piece: JPEG, PNG, GIF, BMP, PPM and its kin.
_WATCHED = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", *(b"P%c" % kind for kind in b"0123456FfPy"))
_PLAIN = (b"P1", b"P2", b"P3")  # numbers as text
_PIECE = 2**13  # bytes of it to read at once: Pillow takes comments out of a piece in quadratic time
_SMALL = 2**18  # bytes: smaller files are read in a second at most, but for the scans of a JPEG and the rows of a PNG


class Watched:
    """A file that ends the reading of an image that takes too long, or after `count_scans` has too many scans.

    At most `most` bytes are read at once. It closes `file` if it `owns` it.
    """

    def __init__(self, file: BinaryIO, owns: bool = False) -> None:
        self._file, self._owns = file, owns
        self.most: int | None = None
        self._began = time.thread_time()
        self._pixels: int | None = None  # of the image whose scans are counted
        self._header = self._scans = 0
        self._last = b""

    def count_scans(self, pixels: int) -> None:
        """From here on count the scans of a JPEG."""
        self._header = self._file.tell()  # bytes in which a marker may be part of a thumbnail or a profile
        self._pixels, self._scans, self._last = pixels, 1, b""

    def read(self, count: int = -1) -> bytes:
        if time.thread_time() - self._began > MOST_SECONDS:
            raise UnreadableImage(f"took more than {MOST_SECONDS:.0f} s to decode")
        place = self._file.tell() if self._pixels is not None else 0
        data = self._file.read(count if self.most is None or 0 <= count < self.most else self.most)
        if self._pixels is not None:
            self._count(data, self._header - place, self._pixels)
        return data

    def _count(self, data: bytes, header: int, pixels: int) -> None:
        if header >= len(data):
            return
        self._scans += data.count(_SCAN, max(0, header))
        self._scans += header <= 0 and self._last == _SCAN[:1] and data[:1] == _SCAN[1:]
        self._last = data[-1:]
        if self._scans > MOST_SCANS or self._scans * pixels > MOST_SCANNED_PIXELS:
            raise UnreadableImage(
                f"decompression bomb: {self._scans:,} scans or more of {pixels:,} pixels; at most {MOST_SCANS} scans, "
                f"and {MOST_SCANNED_PIXELS:,} pixels in all of them, are decoded",
                "bomb",
            )

    def seek(self, *place: int) -> int:
        return self._file.seek(*place)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        if self._owns:
            self._file.close()


def watched(file: str | os.PathLike | BinaryIO, size: int) -> "str | os.PathLike | BinaryIO | Watched":
    """The file of `size` bytes, or the same as one that raises UnreadableImage if its image takes too long, header included."""
    if size < _SMALL:
        return file
    by_name = isinstance(file, str | os.PathLike)
    opened = open(file, "rb") if by_name else file  # noqa: SIM115  `found` closes it, when nothing refers to it any more
    found = Watched(opened, owns=by_name)
    start = opened.read(4)
    opened.seek(0)
    if not start.startswith(_WATCHED):
        return file
    if start.startswith(_PLAIN):
        found.most = _PIECE
    return found


def watch(image: Image.Image) -> None:
    """Let an opened JPEG or PNG, whose header was read, raise UnreadableImage while it is decoded if it exceeds the limits."""
    if image.format not in ("JPEG", "MPO", "PNG") or (image.format != "PNG" and _has_one_scan(image)):
        return
    file = image.fp if isinstance(image.fp, Watched) else Watched(image.fp)  # type: ignore[attr-defined]
    if image.format != "PNG":
        file.count_scans(image.width * image.height)
    image.fp = file  # type: ignore[attr-defined]


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
