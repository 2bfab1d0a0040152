"""Headers of the pages of a parquet file: what Arrow will allocate for a column, which the footer may not tell."""

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

MOST_PAGES = 100_000  # of a column in a row group
_PAGE_HEADER = 2**14  # bytes read at first; Arrow reads headers of up to 16 MiB
_MOST_PAGE_HEADER = 2**24


class DamagedRows(ValueError):
    """Why the rows of a row group cannot be read; the message does not name file and row group."""


class Page(NamedTuple):
    """Bytes of a page in memory, and how many values it has (0 for a dictionary)."""

    size: int
    values: int


def pages(file: BinaryIO, start: int, end: int, expected: int) -> Iterator[Page]:
    """The headers of the pages between two bytes of a file, until they have `expected` values. Raises DamagedRows."""
    at, values, count = start, 0, 0
    while at < end and values < expected:
        header, length = _page_header(file, at, end)
        size, stored = header.get(2, -1), header.get(3, -1)
        if not isinstance(size, int) or not isinstance(stored, int) or size < 0 or stored < 0:
            raise DamagedRows(f"no header of a page at byte {at:,}")
        own = header.get(5, header.get(8))
        own_values = own.get(1) if isinstance(own, dict) else 0
        page = Page(size, own_values if isinstance(own_values, int) else -1)
        if page.values < 0 or (count := count + 1) > MOST_PAGES:
            raise DamagedRows(
                f"no header of a page at byte {at:,}" if page.values < 0 else f"more than {MOST_PAGES:,} pages"
            )
        yield page
        values += page.values
        at += length + stored


def _page_header(file: BinaryIO, at: int, end: int) -> tuple[dict[int, Any], int]:
    count = _PAGE_HEADER
    while True:
        file.seek(at)
        data = file.read(min(count, end - at))
        try:
            return _struct(data, 0, 0)
        except IndexError:
            if len(data) < count or count >= _MOST_PAGE_HEADER:
                raise DamagedRows(f"no header of a page at byte {at:,}") from None
            count *= 32


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Numbers and inner structs of a struct of thrift's compact protocol by their field, and the byte after it."""
    fields: dict[int, Any] = {}
    field = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            field += head >> 4
        else:
            field, at = _signed(data, at)
        fields[field], at = _value(data, at, head & 15, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # true, false
        return kind == 1, at
    if kind == 3:  # a byte
        return data[at], at + 1
    if kind in (4, 5, 6):  # numbers of 16, 32 and 64 bits
        return _signed(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:  # bytes
        count, at = _varint(data, at)
        if at + count > len(data):
            raise IndexError
        return None, at + count
    if kind == 12 and depth < 4:
        return _struct(data, at, depth + 1)
    raise DamagedRows("a header of a page has a field of an unknown type")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at + shift // 7]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + shift // 7 + 1
    raise DamagedRows("a header of a page has a number of more than 64 bits")


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
