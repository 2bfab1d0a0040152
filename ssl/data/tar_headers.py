"""The headers of a plain tar file that may be damaged or malicious: names and places of its regular files, and its links.

`tarfile` is not used here: in several versions of Python a header with a negative size, a long chain of extended headers or one
that repeats part of itself keeps it reading forever. Here every step moves forward in the file, and what one header may claim
is bounded by the file.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MOST_HEADER_BYTES = 2**24  # of one extended header: a long name, or attributes
_BLOCK = 512
_REGULAR = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, FIFOs: their size counts no blocks
LINKS = {b"1": "hard links", b"2": "symbolic links"}  # kinds of headers, and what they are counted as
_LONG_NAME, _LONG_LINK, _SPARSE = b"L", b"K", b"S"
_EXTENDED, _GLOBAL = (b"x", b"X"), b"g"  # X: of Solaris


class TarFault(ValueError):
    """Why a tar file cannot be read on; the message does not name the file."""


class Member(NamedTuple):
    """A regular file: where its content is. `sparse`: it has holes that are not stored, and cannot be read in place.

    Or a link to another file, which is not followed: `link` is one of `LINKS`.
    """

    name: str
    offset: int
    size: int
    sparse: bool
    link: str = ""


def members(file: BinaryIO, length: int, at: int = 0) -> Iterator[Member]:
    """The regular files and links of a tar file of `length` bytes, in order; names have surrogates for bytes that are no UTF-8.

    `at`: where to start, at the first header of a file, and after no extended header that is for all files. Raises TarFault where
    a header is damaged, or a file does not end before `length`.
    """
    every: dict[str, bytes] = {}  # of global extended headers
    own: dict[str, bytes] = {}
    while True:
        header = _read(file, at, _BLOCK)
        if not header.strip(b"\0"):
            if not header and not at:
                raise TarFault("empty file")
            return
        _check(header, at)
        kind, size = header[156:157], _number(header[124:136], at)
        is_extended = kind in _EXTENDED or kind in (_GLOBAL, _LONG_NAME, _LONG_LINK)
        fields = {} if is_extended else every | own
        if "size" in fields:
            size = _decimal(fields["size"], at)
        data = at + _BLOCK
        if kind == _SPARSE and header[482]:
            data = _after_sparse_map(file, data)
        is_folder = kind == b"\0" and header[:100].partition(b"\0")[0].endswith(b"/")  # of tar before 1988
        end = data if kind in _WITHOUT_DATA or is_folder else data + size
        if end > length:
            raise TarFault("the last file is cut off")
        if is_extended:
            if kind != _LONG_LINK:
                if size > MOST_HEADER_BYTES:
                    raise TarFault(
                        f"a header of {size:,} bytes at byte {at}; one with more than {MOST_HEADER_BYTES:,} is not read"
                    )
                content = _read(file, data, size)
                found = {"path": content.partition(b"\0")[0]} if kind == _LONG_NAME else _records(content, at)
                if kind == _GLOBAL:
                    every |= found
                else:
                    own = found | own  # of several headers before a file the first is the outer one
        else:
            name = (
                fields["path"].rstrip(b"/") if "path" in fields and kind != b"5" else fields.get("path", _name(header))
            )
            if (kind in _REGULAR and not is_folder) or kind == _SPARSE:
                place = (data, size, False)
                if kind == _SPARSE:
                    place = (data, size, _number(header[483:495], at) != size)
                elif any(key.startswith("GNU.sparse.") for key in fields):
                    place = _sparse_place(file, data, size, fields)
                yield Member(name.decode("utf-8", "surrogateescape"), *place)
            elif kind in LINKS:
                yield Member(name.decode("utf-8", "surrogateescape"), data, 0, False, LINKS[kind])
            own = {}
        at = end + -end % _BLOCK


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _check(header: bytes, at: int) -> None:
    if len(header) < _BLOCK:
        raise TarFault("truncated header")
    try:
        written = int(header[148:156].partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise TarFault(f"no tar header at byte {at}") from None
    bytes_of = header[:148] + b" " * 8 + header[156:]
    if written != sum(bytes_of) and written != sum(bytes_of) - 256 * sum(byte > 127 for byte in bytes_of):
        raise TarFault(f"no tar header at byte {at}")


def _number(field: bytes, at: int) -> int:
    """Octal digits, or after 0x80 a number of base 256, and after 0xff a negative one."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF or b"-" in field:
        raise TarFault(f"a header with a size below 0 at byte {at}")
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise TarFault(f"a header with a size that is not a number at byte {at}") from None


def _decimal(text: bytes, at: int) -> int:
    if not text.isdigit() or len(text) > 20:
        raise TarFault(f"a header with a size that is not a number of bytes at byte {at}")
    return int(text)


def _name(header: bytes) -> bytes:
    name, prefix = header[:100].partition(b"\0")[0], header[345:500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix and header[156:157] != _SPARSE else name


def _records(content: bytes, at: int) -> dict[str, bytes]:
    """The records `LENGTH KEY=VALUE` of an extended header that say where or how a file is stored."""
    found: dict[str, bytes] = {}
    start = 0
    while content[start : start + 1].isdigit():
        number = content[start : start + 20].partition(b" ")[0]
        stop = start + (int(number) if number.isdigit() else 0)
        if not start + len(number) + 2 < stop <= len(content):
            raise TarFault(f"a damaged extended header at byte {at}")
        key, _, value = content[start + len(number) + 1 : stop - 1].partition(b"=")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse."):
            found[key.decode("ascii", "replace")] = value
        start = stop
    if "GNU.sparse.name" in found:
        found["path"] = found["GNU.sparse.name"]
    return found


def _sparse_place(file: BinaryIO, data: int, size: int, fields: dict[str, bytes]) -> tuple[int, int, bool]:
    """Offset, size, and whether there are holes, of a sparse file in an extended header; `tar -S` also writes files without."""
    if "GNU.sparse.major" not in fields:
        return data, size, fields.get("GNU.sparse.size") != b"%d" % size
    whole = fields.get("GNU.sparse.realsize", b"")
    one_piece = b"1\n0\n" + whole + b"\n"  # the map, in the first block: from byte 0 to the end
    if whole == b"%d" % (size - _BLOCK) and _read(file, data, _BLOCK).startswith(one_piece):
        return data + _BLOCK, size - _BLOCK, False
    return data, size, True


def _after_sparse_map(file: BinaryIO, at: int) -> int:
    """The end of the blocks with the places of zeros that follow a sparse file's header."""
    while True:
        block = _read(file, at, _BLOCK)
        if len(block) < _BLOCK:
            raise TarFault("truncated header")
        at += _BLOCK
        if not block[504]:
            return at
