"""Whether the bytes that a page embeds as an image are one."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 100_000_000  # a browser decodes them all


def check_png(content: bytes) -> None:
    """Raise ValueError unless `content` is one whole PNG image of at most `MOST_PIXELS`, with nothing behind it.

    Checks lengths, checksums and order of the chunks, without decoding the pixels.
    """
    if not content.startswith(SIGNATURE):
        raise ValueError("it is not a PNG image")
    place, kinds = len(SIGNATURE), []
    while place < len(content) and kinds[-1:] != [b"IEND"]:
        length, kind = struct.unpack(">I4s", content[place : place + 8].ljust(8, b"\0"))
        body = content[place + 8 : place + 8 + length]
        if len(body) < length or content[place + 8 + length :][:4] != struct.pack(">I", zlib.crc32(kind + body)):
            raise ValueError("it is a damaged PNG image")
        if not kinds:
            width, height = struct.unpack(">II", body[:8].ljust(8, b"\0"))
            if kind != b"IHDR" or not width * height:
                raise ValueError("it is a damaged PNG image")
            if width * height > MOST_PIXELS:
                raise ValueError(f"it has {width} × {height} pixels, more than {MOST_PIXELS:,}")
        kinds.append(kind)
        place += 12 + length
    if kinds[-1:] != [b"IEND"] or b"IDAT" not in kinds:
        raise ValueError("it is a damaged PNG image")
    if place != len(content):
        raise ValueError("it has more behind the PNG image")
