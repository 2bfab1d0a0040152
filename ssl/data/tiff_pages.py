"""How many pages a TIFF file has, by the chain of their directories alone, which may be long or lead in a circle."""

import os
import struct
from typing import BinaryIO

from wildfern.ssl.data.base import UnreadableImage

MOST_PAGES = 10_000


def count_pages(file: str | os.PathLike | BinaryIO) -> int:
    """The pages of a TIFF or BigTIFF file. Raises UnreadableImage if they lead in a circle, or are more than MOST_PAGES.

    The position in an opened file is kept.
    """
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            return _count(opened)
    place = file.tell()
    try:
        return _count(file)
    finally:
        file.seek(place)


def _count(file: BinaryIO) -> int:
    file.seek(0)
    start = file.read(16)
    order, big = ("<" if start[:2] == b"II" else ">"), start[2:4] in (b"+\0", b"\0+")
    at, count, entry, link = (8, "Q", 20, "Q") if big else (4, "H", 12, "I")
    count_bytes, link_bytes = struct.calcsize(count), struct.calcsize(link)
    following = start[at : at + link_bytes]
    seen: set[int] = set()
    while len(following) == link_bytes and (offset := struct.unpack(order + link, following)[0]):
        if offset in seen:
            raise UnreadableImage("damaged: its pages lead back to an earlier one")
        if len(seen) == MOST_PAGES:
            raise UnreadableImage(f"has more than {MOST_PAGES:,} pages")
        if offset >= 2**63:
            break
        file.seek(offset)
        entries = file.read(count_bytes)
        if len(entries) < count_bytes:
            break
        seen.add(offset)
        after = offset + count_bytes + entry * struct.unpack(order + count, entries)[0]
        if after >= 2**63:
            break
        file.seek(after)
        following = file.read(link_bytes)
    return max(1, len(seen))
