"""Where images are: folders, parquet files and tar shards, listed in a fixed order and read one by one."""

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.data.base import DataError, UnreadableImage
from wildfern.ssl.data.file_names import is_hidden
from wildfern.ssl.data.folder_scan import FolderScan, files_below
from wildfern.ssl.data.image_column import find_image_column
from wildfern.ssl.data.parquet_bounds import read_schema
from wildfern.ssl.data.paths import existing_folder, expanded
from wildfern.ssl.data.row_groups import RowGroups
from wildfern.ssl.data.shard_files import shard_files
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.tar_index import index_shard

MOST_ENCODED_BYTES = 2 * 2**30  # of one image, which is read into memory as a whole
_ROWS_KEPT = 2**28  # bytes of a parquet file
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Listed(NamedTuple):
    """An image before it is opened; see the columns `PLACE` of the manifest."""

    path: str
    place: int
    bytes: int
    modified: int


class Container(ABC):
    """A folder, a parquet file or a tar shard, at the full path `name`."""

    kind: str

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def items(self) -> Iterator[Listed]:
        """What is in it, in a fixed order. Raises DataError for what cannot be listed."""

    @abstractmethod
    def read(self, path: str, place: int, size: int) -> bytes:
        """The encoded bytes of an image; raises UnreadableImage."""


class Folder(Container):
    """All files below a folder but hidden ones, whatever their extension."""

    kind = "folder"

    def items(self) -> Iterator[Listed]:
        scan = FolderScan(self.name)
        for name, entry in files_below(scan):
            try:
                status = entry.stat()
                yield Listed(name, -1, status.st_size, status.st_mtime_ns)
            except OSError:  # a dangling link: reading it says so
                yield Listed(name, -1, 0, 0)
        for path in scan.skipped:
            yield Listed(os.path.relpath(path, self.name) + "/", -1, 0, 0)

    def read(self, path: str, place: int, size: int) -> bytes:
        return self._read(path, -1)

    def first_bytes(self, path: str) -> bytes:
        """The first 16 bytes of a file; raises UnreadableImage."""
        return self._read(path, 16)

    def _read(self, path: str, count: int) -> bytes:
        if path.endswith("/"):
            raise UnreadableImage("a folder that cannot be opened")
        try:
            handle = os.open(os.path.join(self.name, path), _READ)
            with os.fdopen(handle, "rb") as file:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode):  # reading from a pipe would wait forever
                    raise UnreadableImage("not a regular file")
                _check_size(status.st_size)
                return file.read(count)
        except OSError as error:
            raise UnreadableImage(f"cannot be opened: {error.strerror}") from error


class Shard(Container):
    """The images of a tar file: one of each sample, as training reads them."""

    kind = "webdataset"

    def items(self) -> Iterator[Listed]:
        index = index_shard(self.name)
        for number in range(len(index.keys)):
            yield Listed(index.keys[number], index.offsets[number], index.sizes[number], index.file.changed)

    def read(self, path: str, place: int, size: int) -> bytes:
        _check_size(size)
        try:
            with open(self.name, "rb") as file:
                file.seek(place)
                return file.read(size)
        except OSError as error:
            raise UnreadableImage(f"the shard cannot be opened: {error.strerror}") from error


class ParquetFile(Container):
    """The rows of a parquet file, as training reads them: `place` is the row."""

    kind = "parquet"

    def items(self) -> Iterator[Listed]:
        changed = SteadyFile.of(self.name).changed
        for row in range(len(self._rows)):
            yield Listed(f"row {row}", row, -1, changed)

    def read(self, path: str, place: int, size: int) -> bytes:
        encoded = self._rows[place]
        if isinstance(encoded, Path):
            return Folder(str(encoded.parent)).read(encoded.name, -1, -1)
        if encoded is None:
            raise UnreadableImage("the row has no bytes")
        _check_size(len(encoded))
        return bytes(encoded)

    @cached_property
    def _rows(self) -> RowGroups:
        column = find_image_column(read_schema(SteadyFile.of(self.name)), self.name, None)
        return RowGroups([Path(self.name)], [column], _ROWS_KEPT)


_CONTAINERS: dict[str, type[Container]] = {kind.kind: kind for kind in (Folder, Shard, ParquetFile)}


@lru_cache(8)
def container(kind: str, name: str) -> Container:
    """The container at this path; the last ones stay open."""
    return _CONTAINERS[kind](name)


def containers(source: str) -> Sequence[Container]:
    """What a source consists of: "folder:PATH", "parquet:PATH", "webdataset:PATTERN", or the path of one of these alone.

    Raises CurationError for other sources, and DataError for paths that do not exist.
    """
    kind, colon, where = source.partition(":")
    if kind not in _CONTAINERS or not colon:
        kind, where = _kind_of(source), source
    if kind == "folder":
        return [Folder(str(existing_folder(where).absolute()))]
    if kind == "webdataset":
        return [Shard(str(Path(path).absolute())) for path in shard_files(where.replace("{split}", "*"))]
    path = expanded(where)
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*.parquet") if not any(map(is_hidden, file.relative_to(path).parts))
        )
        if not files:
            raise DataError(f"no .parquet files below {path}")
        return [ParquetFile(str(file.absolute())) for file in files]
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    return [ParquetFile(str(path.absolute()))]


def full_name(source: str) -> str:
    """A source with its kind: "folder:photos" for "photos". Raises CurationError if it has none."""
    kind, colon, _ = source.partition(":")
    return source if colon and kind in _CONTAINERS else f"{_kind_of(source)}:{source}"


def _kind_of(source: str) -> str:
    path = expanded(source)
    if path.is_dir():
        return "folder"
    if kind := {".parquet": "parquet", ".tar": "webdataset"}.get(path.suffix.lower()):
        return kind
    kinds = ", ".join(f"{kind}:{'PATTERN' if kind == 'webdataset' else 'PATH'}" for kind in _CONTAINERS)
    found = "is a file, and no .parquet or .tar" if path.is_file() else "does not exist"
    raise CurationError(f"{source} {found}; a source is a folder, or {kinds}")


def _check_size(size: int) -> None:
    if not size:
        raise UnreadableImage("empty file")
    if size > MOST_ENCODED_BYTES:
        raise UnreadableImage(f"{size:,} bytes; an image of more than {MOST_ENCODED_BYTES:,} is not read")
