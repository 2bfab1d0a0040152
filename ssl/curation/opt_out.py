"""Reservations against training in Content Credentials (C2PA), read without a dependency.

The training-and-data-mining assertion (C2PA 1.x: c2pa.training-mining; CAWG 1.1: cawg.training-mining) says for data mining, AI
training, generative AI training and AI inference whether each is allowed, notAllowed or constrained. It lies in a JUMBF box
(ISO 19566-5): in the APP11 segments of a JPEG, the caBX chunk of a PNG, the C2PA chunk of a WebP, a uuid box of HEIF and AVIF.

Signatures and hashes are not verified: a reservation counts, no matter who wrote it. Not read: TIFF, GIF, compressed
manifests, and credentials that are kept elsewhere and only linked to.
"""

import re
from collections.abc import Iterator
from typing import Any

from wildfern.bounded_json import parse_json

__all__ = ["c2pa_reservation"]

_LABEL = re.compile(rb"(?:c2pa|cawg)\.training-mining(?:\.v\d+)?(?:__\d+)?")
_TRAINING = re.compile(r"(?:[\w-]+\.)*([\w-]*(?:train|mining)[\w-]*)")  # name of an entry; AI inference is no training
_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # of C2PA in HEIF and AVIF
_MOST_BOXES = 10_000
_MOST_BYTES = 2**20  # of an assertion
_MOST_DEPTH = 8
_MOST_VALUES = 1_000  # of an assertion


def c2pa_reservation(content: bytes) -> str | None:
    """Words such as "C2PA: ai_training notAllowed, data_mining constrained" for the bytes of an image file.

    None if nothing is reserved, and for an assertion that is damaged, which says nothing. Entries of all manifests of the file
    count, also of those of images that it was made from. Nothing is raised for any content.
    """
    reserved = set()
    for store in _stores(content):
        for assertion in _assertions(store):
            reserved |= set(_entries(assertion))
    return "C2PA: " + ", ".join(f"{name} {use}" for name, use in sorted(reserved)) if reserved else None


def _entries(assertion: Any) -> Iterator[tuple[str, str]]:
    entries = assertion.get("entries") if isinstance(assertion, dict) else None
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        use = entry.get("use") if isinstance(entry, dict) else None
        if use in ("notAllowed", "constrained") and (known := _TRAINING.fullmatch(str(name)[:100])):
            yield known[1], use


def _assertions(store: bytes) -> Iterator[Any]:
    """The content of each training-and-data-mining assertion of a C2PA manifest store."""
    waiting = [(0, len(store), 0)]
    count = 0
    while waiting:
        start, end, depth = waiting.pop()
        label = b""
        for kind, inner, after in _boxes(store, start, end):
            count += 1
            if count > _MOST_BOXES:
                return
            if kind == b"jumb" and depth < _MOST_DEPTH:
                waiting.append((inner, after, depth + 1))
            elif kind == b"jumd" and after - inner > 17 and store[inner + 16] & 2:  # toggles: it has a label
                label = store[inner + 17 : after].split(b"\0", 1)[0]
            elif kind in (b"json", b"cbor") and after - inner <= _MOST_BYTES and _LABEL.fullmatch(label):
                try:
                    yield parse_json(store[inner:after]) if kind == b"json" else _Cbor(store[inner:after]).value()
                except (ValueError, IndexError):
                    continue


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, first byte and end of the content of each box; ends at one that is damaged."""
    while start + 8 <= end:
        size, header = int.from_bytes(data[start : start + 4]), 8
        if size == 1:
            size, header = int.from_bytes(data[start + 8 : start + 16]), 16
        elif size == 0:
            size = end - start
        if not header <= size <= end - start:
            return
        yield data[start + 4 : start + 8], start + header, start + size
        start += size


def _stores(content: bytes) -> Iterator[bytes]:
    if content[:3] == b"\xff\xd8\xff":
        yield from _of_jpeg(content)
    elif content[:8] == b"\x89PNG\r\n\x1a\n":
        position = 8
        while position + 12 <= len(content):
            size = int.from_bytes(content[position : position + 4])
            if content[position + 4 : position + 8] == b"caBX":
                yield content[position + 8 : position + 8 + size]
            position += 12 + size
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        position = 12
        while position + 8 <= len(content):
            size = int.from_bytes(content[position + 4 : position + 8], "little")
            if content[position : position + 4] == b"C2PA":
                yield content[position + 8 : position + 8 + size]
            position += 8 + size + size % 2
    elif content[4:8] == b"ftyp":
        for kind, start, end in _boxes(content, 0, len(content)):
            if kind == b"uuid" and content[start : start + 16] == _UUID:
                purpose, _, rest = content[start + 20 : end].partition(b"\0")  # after 4 bytes of version and flags
                yield rest[8:] if purpose == b"manifest" else rest


def _of_jpeg(content: bytes) -> Iterator[bytes]:
    """APP11: "JP", the number of the box (2 bytes), of the segment (4), header and content of the box, the header each time."""
    parts: dict[bytes, list[bytes]] = {}
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker, size = content[position + 1], int.from_bytes(content[position + 2 : position + 4])
        if marker in (0xDA, 0xD9) or size < 2:  # image data, the end
            break
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker == 0xEB and content[position + 4 : position + 6] == b"JP":
            number, start = content[position + 6 : position + 8], position + 12
            if number in parts:
                start += 16 if content[start : start + 4] == b"\0\0\0\1" else 8
            parts.setdefault(number, []).append(content[start : position + 2 + size])
        position += 2 + size
    for segments in parts.values():
        yield b"".join(segments)


class _Cbor:
    """A value of CBOR (RFC 8949) with a definite length. Raises ValueError or IndexError for damage and for other values."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._count = 0

    def value(self, depth: int = 0) -> Any:
        self._count += 1
        if depth > _MOST_DEPTH or self._count > _MOST_VALUES:
            raise ValueError("too many values")
        first = self._data[self._position]
        self._position += 1
        kind, more = first >> 5, first & 31
        if more > 27:
            raise ValueError("an indefinite length")
        argument = more if more < 24 else int.from_bytes(self._bytes(1 << more - 24))
        match kind:
            case 0:
                return argument
            case 1:
                return -1 - argument
            case 2:
                return self._bytes(argument)
            case 3:
                return self._bytes(argument).decode()
            case 4:
                return [self.value(depth + 1) for _ in range(argument)]
            case 5:
                pairs = [(self.value(depth + 1), self.value(depth + 1)) for _ in range(argument)]
                return {key: value for key, value in pairs if isinstance(key, str | int)}
            case 6:  # a tag: what it is about
                return self.value(depth + 1)
            case _:  # null, undefined, other floats and simple values are not told apart
                return {20: False, 21: True}.get(more)

    def _bytes(self, size: int) -> bytes:
        if size > len(self._data) - self._position:
            raise ValueError("cut off")
        self._position += size
        return self._data[self._position - size : self._position]
