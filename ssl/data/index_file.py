"""Indexes of data sets that take long to make: one file of arrays each, kept between commands and shared by all processes."""

import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from wildfern.bounded_json import parse_json
from wildfern.files import open_reading, remove_partial_files, replacing
from wildfern.ssl.tracking.current_progress import current_progress

IndexArrays = dict[str, NDArray]  # numbers and truth values; text as uint8

WAIT = 600.0  # s for another process that builds the same index

_MAGIC = b"wildfern index 2"
_START = struct.Struct(
    "<16sQQLL"
)  # magic and version, bytes of the file, bytes and CRC-32 of the header, CRC-32 of the rest
_MOST_HEADER = 2**20  # bytes
_ALIGNED = 64  # bytes
_CHECKED_TO = 2**27  # bytes of an index whose arrays are checked each time: for a larger one it takes too long
_RANDOM_FROM = 2**28  # bytes of an index of which training looks at few places a step
_DTYPES = {"|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"}


def lasting_index(
    name: str,
    is_current: Callable[[IndexArrays], bool],
    build: Callable[[], IndexArrays],
    worth_keeping: Callable[[IndexArrays], bool],
    folder: Path | None,
) -> IndexArrays:
    """The arrays of the index `name` in `folder`, mapped read-only into memory: one copy for all processes of a host.

    Where there is none, or `is_current` says no, they are built; if `worth_keeping`, they are written, and replace what was
    there. While one process builds, others wait for it, and then map the same file; what a killed one left is removed. A process
    builds in its own memory, and writes nothing, if `folder` is None or cannot be written, if the file system has no locks, or
    after waiting for 10 minutes. Errors of `build` are raised.
    """
    if folder is None:
        return build()
    path = folder / f"{name}.index"
    found = map_index(path)
    if found is not None and is_current(found):
        return found
    with _locked(path) as locked:
        found = map_index(path) if locked else None  # by the process that was waited for
        if found is not None and is_current(found):
            return found
        del found  # Windows does not replace a mapped file
        if locked:
            with suppress(OSError):  # of another user
                remove_partial_files(folder, path.name)
        arrays = build()
        if locked and worth_keeping(arrays):
            try:
                write_index(path, arrays)
            except OSError:  # a full disk, or a folder that became read-only
                return arrays
            mapped = map_index(path)
            return arrays if mapped is None else mapped
    return arrays


def write_index(path: Path, arrays: Mapping[str, NDArray]) -> None:
    """Write the arrays as one file that `map_index` reads; what was at `path` is replaced as a whole.

    Raises ValueError for arrays that are not of numbers, OSError if the file cannot be written.
    """
    plain = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.str not in _DTYPES:
            raise ValueError(f"array {name} of an index must be of numbers, got {array.dtype}")
    shapes = {name: (array.dtype.str, list(array.shape)) for name, array in plain.items()}
    start, total, places = index_layout(shapes)
    checksum, end = 0, len(start)
    for name, array in plain.items():
        checksum = zlib.crc32(
            array.data.cast("B") if array.size else b"", zlib.crc32(bytes(places[name] - end), checksum)
        )
        end = places[name] + array.nbytes
    start, *_ = index_layout(shapes, zlib.crc32(bytes(total - end), checksum))
    with replacing(path) as beside, beside.open("wb") as file:
        file.write(start)
        for name, array in plain.items():
            file.write(bytes(places[name] - file.tell()))
            file.write(array.data)
        file.write(bytes(total - file.tell()))


def index_layout(arrays: Mapping[str, tuple[str, list[int]]], checksum: int = 0) -> tuple[bytes, int, dict[str, int]]:
    """The first bytes of an index of arrays of these types and shapes, the bytes of the file, and where each array starts in it.

    `checksum` is the CRC-32 of all bytes behind the first ones. Raises ValueError for too many arrays.
    """
    entries = []
    end = 0  # of the arrays, from the first one on
    for name, (dtype, shape) in arrays.items():
        entries.append([name, dtype, shape, end])
        end = _aligned(end + math.prod(shape) * np.dtype(dtype).itemsize)
    header = json.dumps(entries).encode()
    if len(header) > _MOST_HEADER:
        raise ValueError(f"the index has too many arrays: {len(arrays):,}")
    first = _aligned(_START.size + len(header))
    start = _START.pack(_MAGIC, first + end, len(header), zlib.crc32(header), checksum) + header
    return start, first + end, {name: first + offset for name, _, _, offset in entries}


def map_index(path: Path) -> IndexArrays | None:
    """The arrays of a file of `write_index`, read-only and mapped into memory; they stay as they are if it is replaced.

    None for a file that is missing, incomplete, damaged, of another version, or something else. The arrays of files of more than
    128 MiB are not checked.
    """
    try:
        with open_reading(path) as file:
            length = os.fstat(file.fileno()).st_size
            magic, total, header_bytes, checksum, of_arrays = _START.unpack(file.read(_START.size))
            if magic != _MAGIC or total != length or header_bytes > _MOST_HEADER:
                return None
            header = file.read(header_bytes)
            if zlib.crc32(header) != checksum:
                return None
            entries = parse_json(header)
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if length <= _CHECKED_TO and zlib.crc32(memoryview(content)[_START.size + header_bytes :]) != of_arrays:
            return None
        if length >= _RANDOM_FROM and hasattr(mmap, "MADV_RANDOM"):
            content.madvise(mmap.MADV_RANDOM)  # otherwise each image that is looked up reads its surroundings too
        first = _aligned(_START.size + header_bytes)
        return {name: _array(content, dtype, shape, first, offset) for name, dtype, shape, offset in entries}
    except (OSError, ValueError, TypeError, struct.error):
        return None


def _array(content: mmap.mmap, dtype: str, shape: list[int], first: int, offset: int) -> NDArray:
    """One array of a mapped file, `offset` behind its first one. Raises ValueError or TypeError for one that is not in it."""
    count = math.prod(shape)  # Python's integers do not overflow
    if dtype not in _DTYPES or min(shape, default=0) < 0 or offset < 0 or offset % _ALIGNED:
        raise ValueError(f"no array of numbers: {dtype} {shape}")
    if first + offset + count * np.dtype(dtype).itemsize > len(content):
        raise ValueError("an array is longer than the file")
    return np.frombuffer(content, dtype, count, first + offset).reshape(shape) if count else np.empty(shape, dtype)


def _aligned(position: int) -> int:
    return -(-position // _ALIGNED) * _ALIGNED


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether the lock of the index at `path` could be taken, within `WAIT`; it is held during the block."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except TimeoutError:
            current_progress().detail(f"waiting for another process that makes the index {path}")
            lock.acquire(timeout=WAIT)
            current_progress().detail("")
    except (OSError, NotImplementedError):  # waited too long, a folder that cannot be written, a system without locks
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
