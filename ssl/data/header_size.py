"""Width and height of plain JPEG and PNG files from their first bytes, ten times sooner than by opening them as images."""

import os
import stat
import struct
import zlib

_FIRST, _MOST = 2**12, 2**18  # bytes that are read at first, and for a long header
_END = 2  # of the marker at the start of a JPEG
_SOS, _SOF, _DQT, _COM = 0xDA, (0xC0, 0xC1, 0xC2), 0xDB, 0xFE
_SKIPPED = (0xC4, 0xDD)  # DHT, DRI
_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # of each color type
_LENGTHS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7}


class _Short(Exception):
    """More of the file is needed."""


def plain_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """(width, height) of an image whose header Pillow surely accepts; None for any other, which is then for Pillow to judge.

    A JPEG is plain if it has the segments that all programs write, each whole and of the right length; one with EXIF only if its
    resolution is elsewhere, as Pillow would look for it there. A PNG is plain if all its chunks before the data are common ones
    with the right checksum. WebP is not looked at, as its decoder takes the whole file to find faults.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            start = os.read(handle, _FIRST)
            try:
                return _size(start)
            except _Short:
                if len(start) < _FIRST:  # the whole file
                    return None
            try:
                return _size(start + os.read(handle, _MOST - _FIRST))
            except _Short:
                return None
        finally:
            os.close(handle)
    except OSError:
        return None


def _size(start: bytes) -> tuple[int, int] | None:
    """Raises _Short if the header is longer than `start`."""
    if start.startswith(b"\xff\xd8\xff"):
        return _jpeg_size(start)
    return _png_size(start) if start.startswith(_PNG) else None


def _jpeg_size(start: bytes) -> tuple[int, int] | None:
    size: tuple[int, int] | None = None
    place, length = _END, len(start)
    exif = resolution = False
    while True:
        if place + 4 > length:
            raise _Short
        mark, marker = start[place], start[place + 1]
        count = start[place + 2] << 8 | start[place + 3]
        body, place = place + 4, place + 2 + count
        if mark != 0xFF or count < 2:
            return None
        if place > length:
            raise _Short
        if marker == _SOS:
            return None if exif and not resolution else size
        if marker in _SOF:
            layers = start[body + 5] if count >= 8 else 0
            if size is not None or layers not in (1, 3, 4) or count != 8 + 3 * layers or start[body] != 8:
                return None
            height, width = struct.unpack_from(">HH", start, body + 1)
            if not width or not height:
                return None
            size = width, height
        elif marker == _DQT:
            while body < place:
                body += 129 if start[body] >> 4 else 65
            if body != place:
                return None
        elif 0xE0 <= marker <= 0xEF:
            kind = start[body : body + 12]
            if marker == 0xE0 and kind.startswith(b"JFIF"):
                if count < 16:
                    return None
                resolution = resolution or start[body + 7] in (1, 2)
            elif marker == 0xE1 and kind.startswith(b"Exif\0\0"):
                exif = True
            elif (
                (marker == 0xE2 and kind.startswith(b"MPF\0"))
                or (marker == 0xE2 and kind == b"ICC_PROFILE\0" and count < 16)
                or (marker == 0xEE and kind.startswith(b"Adobe") and count < 14)
                or marker == 0xED
            ):
                return None
        elif marker not in _SKIPPED and marker != _COM:
            return None


def _png_size(start: bytes) -> tuple[int, int] | None:
    if len(start) < 33:
        raise _Short
    width, height, bits, color, _, kind_of_filter, _ = struct.unpack_from(">IIBBBBB", start, 16)
    if not width or not height or kind_of_filter or bits not in _BITS.get(color, ()) or not _is_whole(start, 8, 13):
        return None
    place = 33
    while True:
        if place + 8 > len(start):
            raise _Short
        count, kind = struct.unpack_from(">I4s", start, place)
        if kind == b"IDAT":
            return width, height
        if kind != b"tEXt" and not (kind == b"PLTE" or (kind == b"tRNS" and color == 3) or _LENGTHS.get(kind) == count):
            return None
        if place + 12 + count > len(start):
            raise _Short
        if not _is_whole(start, place, count):
            return None
        place += 12 + count


def _is_whole(start: bytes, place: int, count: int) -> bool:
    """Whether the chunk at this place has the right checksum."""
    (checksum,) = struct.unpack_from(">I", start, place + 8 + count)
    return zlib.crc32(start[place + 4 : place + 8 + count]) == checksum
