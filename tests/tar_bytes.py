"""Tar shards byte by byte: headers as programs write them, unusual ones, and damage."""

import io

from PIL import Image

from wildfern.ssl.data.tar_headers import MOST_HEADER_BYTES


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def header(name: bytes = b"x.png", kind: bytes = b"0", size: bytes = b"%011o\0" % 0, rest: bytes = b"") -> bytes:
    """A header of 512 bytes whose checksum is right; `rest` comes after the type."""
    start = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size + b"00000000000\0"
    end = (kind + rest).ljust(356, b"\0")
    return start + b"%06o\0 " % (sum(start + end) + 8 * 32) + end


def member(name: bytes, data: bytes, kind: bytes = b"0") -> bytes:
    return header(name, kind, b"%011o\0" % len(data)) + data + bytes(-len(data) % 512)


def number(value: int) -> bytes:
    return b"\x80" + value.to_bytes(11, "big") if value >= 0 else (value + 2**96).to_bytes(12, "big")


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    length = next(n for n in range(length, length + 12) if n == length + len(str(n)))
    return b"%d %s=%s\n" % (length, key, value)


FIRST = member(b"0.png", png(7))
AFTER = member(b"9.png", png(9))
FAULTS = {
    "negative size": (header(size=number(-512)), "a size below 0"),
    "size that leads back to the start": (header(size=number(-len(FIRST) - 512)), "a size below 0"),
    "octal negative": (header(size=b"-0000000512\0"), "a size below 0"),
    "no number": (header(size=b"zzzz\0\0\0\0\0\0\0\0"), "a size that is not a number"),
    "beyond the file": (header(size=number(10**9)), "the last file is cut off"),
    "beyond any file": (header(size=number(2**70)), "the last file is cut off"),
    "pax size -1": (member(b"p", record(b"size", b"-1"), b"x") + header(), "a size that is not a number"),
    "pax size of 5000 digits": (
        member(b"p", record(b"size", b"9" * 5000), b"x") + header(),
        "a size that is not a number",
    ),
    "pax size beyond": (member(b"p", record(b"size", b"9" * 18), b"x") + header(), "the last file is cut off"),
    "pax records of length 0": (member(b"p", b"0 path=x\n" * 9, b"x") + header(), "damaged extended header"),
    "pax records that overlap": (member(b"p", b"2 " * 200_000, b"x") + header(), "damaged extended header"),
    "pax digits": (member(b"p", b"1" * 1_000_000, b"x") + header(), "damaged extended header"),
    "long name of 10^9 bytes": (header(b"n", b"L", number(10**9)), "the last file is cut off"),
    "pax header that is too large": (member(b"p", bytes(MOST_HEADER_BYTES + 1), b"x"), "is not read"),
    "global header that is too large": (member(b"p", bytes(MOST_HEADER_BYTES + 1), b"g"), "is not read"),
    "sparse map without end": (
        header(kind=b"S", rest=bytes(325) + b"\1") + (bytes(504) + b"\1" + bytes(7)) * 3,
        "truncated",
    ),
    "checksum": (header().replace(b"x.png", b"y.png"), "no tar header at byte"),
}


def without_holes(data: bytes) -> dict[str, bytes]:
    """A file without holes as `tar -S` may write it on a disk that compresses, in each format."""
    zero, size = b"%011o\0" % 0, b"%011o\0" % len(data)
    old = header(b"4.png", b"S", size, bytes(229) + zero + size + bytes(73) + size) + data
    fields = record(b"GNU.sparse.size", b"%d" % len(data)) + record(b"GNU.sparse.map", b"0,%d" % len(data))
    new = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.name", b"4.png")
    new += record(b"GNU.sparse.realsize", b"%d" % len(data))
    return {
        "old": old + bytes(-len(old) % 512),
        "0.1": member(b"p", fields, b"x") + member(b"4.png", data),
        "1.0": member(b"p", new, b"x") + member(b"s", (b"1\n0\n%d\n" % len(data)).ljust(512, b"\0") + data),
    }


UNUSUAL = {
    **without_holes(png(4)),
    "folder with a size, before POSIX": header(b"folder/", b"\0", b"%011o\0" % 4096) + member(b"4.png", png(4)),
    "bytes after the checksum": member(b"4.png", png(4)).replace(b"\0 0", b"\0x0", 1),
    "text after the records": member(b"p", record(b"path", b"4.png") + b"\n", b"x") + member(b"s", png(4)),
    "attributes of 2 MB": member(b"p", record(b"SCHILY.xattr.user.a", bytes(2 * 10**6)), b"x")
    + member(b"4.png", png(4)),
}
