"""Where images are: folders, parquet files and tar shards, listed in a fixed order and read one by one."""

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from wildfern.ssl.curation.manifest import CurationError, path_on_disk, stored_path
from wildfern.ssl.data.base import DataError, UnreadableImage
from wildfern.ssl.data.file_names import is_hidden
from wildfern.ssl.data.folder_scan import FolderScan, files_below
from wildfern.ssl.data.image_column import find_image_column
from wildfern.ssl.data.parquet_bounds import read_schema
from wildfern.ssl.data.paths import existing_folder, expanded
from wildfern.ssl.data.pillow_image import MACHINE_FAULTS
from wildfern.ssl.data.row_groups import RowGroups
from wildfern.ssl.data.shard_files import shard_files
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.tar_index import index_shard

MOST_ENCODED_BYTES = 2 * 2**30  # of one image, which is read into memory as a whole
_ROWS_KEPT = 2**28  # bytes of a parquet file
_LATEST = 2**63 - 1  # ns from 1970 to the year 2262; file systems have times beyond
_SECOND = 10**9
_REST = "rest of the shard"
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Listed(NamedTuple):
    """An image before it is opened; see the columns `PLACE` of the manifest."""

    path: str
    place: int
    bytes: int
    modified: int


class Container(ABC):
    """A folder, a parquet file or a tar shard, at the full path `name` as on the disk."""

    kind: str

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def items(self) -> Iterator[Listed]:
        """What is in it, in a fixed order. Raises DataError for what cannot be listed."""

    @abstractmethod
    def read(self, path: str, place: int, size: int) -> bytes:
        """The encoded bytes of an image; raises UnreadableImage, or DataError for a container that cannot be read."""

    def is_as_listed(self, item: Listed) -> bool:
        """Whether the file of the image, or the container, was not changed since it was listed."""
        try:
            return _is_unchanged(os.stat(self.name), item)
        except OSError:
            return False


class Folder(Container):
    """All files below a folder but hidden ones, whatever their extension."""

    kind = "folder"

    def items(self) -> Iterator[Listed]:
        scan = FolderScan(self.name)
        for name, entry in files_below(scan):
            try:
                status = entry.stat()
                yield Listed(name, -1, status.st_size, _time(status.st_mtime_ns))
            except OSError:  # a dangling link: reading it says so
                yield Listed(name, -1, 0, 0)
        for path in scan.skipped:
            yield Listed(os.path.relpath(path, self.name) + "/", -1, 0, 0)

    def read(self, path: str, place: int, size: int) -> bytes:
        return self._read(path, -1)

    def first_bytes(self, path: str) -> bytes:
        """The first 16 bytes of a file; raises UnreadableImage."""
        return self._read(path, 16)

    def is_as_listed(self, item: Listed) -> bool:
        try:
            status = os.stat(os.path.join(self.name, item.path))
        except OSError:
            return False
        return status.st_size == item.bytes and _is_unchanged(status, item)

    def _read(self, path: str, count: int) -> bytes:
        if path.endswith("/"):
            raise UnreadableImage("a folder that cannot be opened")
        return _read(os.path.join(self.name, path), 0, count)


class Shard(Container):
    """The images of a tar file: one of each sample, as training reads them. What is behind a damage is one more item."""

    kind = "webdataset"

    def items(self) -> Iterator[Listed]:
        index = index_shard(self.name)
        for number in range(len(index.keys)):
            yield Listed(index.keys[number], index.offsets[number], index.sizes[number], _time(index.file.changed))
        if index.fault is not None:
            yield Listed(_REST, -1, 0, _time(index.file.changed))

    def read(self, path: str, place: int, size: int) -> bytes:
        if place < 0:
            raise UnreadableImage(f"the shard is {index_shard(self.name).fault}", "truncated")
        _check_size(size)
        return _read(self.name, place, size, "the shard: ")


class ParquetFile(Container):
    """The rows of a parquet file, as training reads them: `place` is the row.

    A row may name an image file; that this is changed is not noticed while the parquet file stays the same.
    """

    kind = "parquet"
    _rows: RowGroups | None = None

    def items(self) -> Iterator[Listed]:
        rows = self._opened()
        changed = _time(rows.noted[0].changed)
        for row in range(len(rows)):
            yield Listed(f"row {row}", row, -1, changed)

    def read(self, path: str, place: int, size: int) -> bytes:
        rows = self._opened()
        if not 0 <= place < len(rows):
            raise UnreadableImage(f"the file has {len(rows):,} rows, and no {path}")
        encoded = rows[place]
        if isinstance(encoded, Path):
            return Folder(str(encoded.parent)).read(encoded.name, -1, -1)
        if encoded is None:
            raise UnreadableImage("the row has no bytes")
        _check_size(len(encoded))
        return bytes(encoded)

    def _opened(self) -> RowGroups:
        """The rows of the file as it is now: another may have been written in its place."""
        now, rows = SteadyFile.of(self.name), self._rows
        if rows is None or rows.noted[0][1:] != now[1:]:
            column = find_image_column(read_schema(now), self.name, None)
            rows = self._rows = RowGroups([Path(self.name)], [column], _ROWS_KEPT)
        return rows


_CONTAINERS: dict[str, type[Container]] = {kind.kind: kind for kind in (Folder, Shard, ParquetFile)}


def opened(kind: str, name: str) -> Container:
    """The container at this path. Raises CurationError for a kind that there is not."""
    if kind not in _CONTAINERS:
        raise CurationError(f"images are in {', '.join(_CONTAINERS)}, not in {kind!r}, as the manifest says of {name}")
    return _CONTAINERS[kind](name)


container = lru_cache(8)(opened)  # the last ones stay open


def containers(source: str) -> Sequence[Container]:
    """What a source consists of: "folder:PATH", "parquet:PATH", "webdataset:PATTERN", or the path of one of these alone.

    Raises CurationError for other sources, and DataError for paths that do not exist.
    """
    kind, where = _parsed(path_on_disk(source))
    if kind == "folder":
        return [Folder(str(existing_folder(where).absolute()))]
    if kind == "webdataset":
        return [Shard(str(Path(path).absolute())) for path in shard_files(where.replace("{split}", "*"))]
    path = expanded(where)
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() == ".parquet"
            and not file.is_dir()  # Spark names folders so, which have the files
            and not any(map(is_hidden, file.relative_to(path).parts))
        )
        if not files:
            raise DataError(f"no .parquet files below {path}")
        return [ParquetFile(str(file.absolute())) for file in files]
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    return [ParquetFile(str(path.absolute()))]


def full_name(source: str) -> str:
    """A source with its kind and its full path, as a `stored_path`: "folder:/home/me/photos" for "photos".

    Raises CurationError for a source of no kind.
    """
    kind, where = _parsed(path_on_disk(source))
    return stored_path(f"{kind}:{expanded(where).absolute()}")


def _parsed(source: str) -> tuple[str, str]:
    """The kind of a source, and where it is."""
    kind, colon, where = source.partition(":")
    if not colon or kind not in _CONTAINERS:
        kind, where = _kind_of(source), source
    if not where:
        raise CurationError(f"the source {source!r} names no path; a source is a folder, or {_kinds()}")
    return kind, where


def _kind_of(source: str) -> str:
    path = expanded(source)
    kind = {".parquet": "parquet", ".tar": "webdataset"}.get(path.suffix.lower())
    if path.is_dir():
        return "parquet" if kind == "parquet" else "folder"
    if kind is None:
        found = "is a file, and no .parquet or .tar" if path.is_file() else "does not exist"
        raise CurationError(f"{source} {found}; a source is a folder, or {_kinds()}")
    return kind


def _kinds() -> str:
    return ", ".join(f"{kind}:{'PATTERN' if kind == 'webdataset' else 'PATH'}" for kind in _CONTAINERS)


def _time(changed: int) -> int:
    """A time of a last change, in ns, as the manifest has it."""
    return max(-_LATEST, min(changed, _LATEST))


def _is_unchanged(status: os.stat_result, item: Listed) -> bool:
    return _time(status.st_mtime_ns) // _SECOND == item.modified // _SECOND  # file systems may round it later


def _read(path: str, place: int, count: int, what: str = "") -> bytes:
    """At most `count` bytes of a regular file from byte `place` on; raises UnreadableImage."""
    try:
        handle = os.open(path, _READ)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):  # reading from a pipe would wait forever
                raise UnreadableImage(f"{what}not a regular file")
            if not place:
                _check_size(status.st_size)
            with open(handle, "rb", closefd=False) as file:
                file.seek(place)
                return file.read(count)
        finally:
            os.close(handle)
    except UnreadableImage:
        raise
    except OSError as error:
        if error.errno in MACHINE_FAULTS:
            raise
        raise UnreadableImage(f"{what}cannot be opened: {error.strerror}") from error
    except ValueError as error:  # a zero byte in the name
        raise UnreadableImage(f"{what}cannot be opened: {error}") from error


def _check_size(size: int) -> None:
    if not size:
        raise UnreadableImage("empty file")
    if size > MOST_ENCODED_BYTES:
        raise UnreadableImage(f"{size:,} bytes; an image of more than {MOST_ENCODED_BYTES:,} is not read")
