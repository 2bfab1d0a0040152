"""Rows that were measured and are kept on disk at once: Parquet files of some thousand rows, found again by their place.

A kill loses at most the rows since the last part was written. Rows of an unchanged image are taken from here, or from the
manifest of the last scan, instead of being measured again.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wildfern.files import replacing
from wildfern.ssl.curation.manifest import MANIFEST, ROWS, STORED, CurationError
from wildfern.ssl.curation.row_check import check_rows
from wildfern.ssl.data.pillow_image import MACHINE_FAULTS

PARTS = ".scan"  # hidden: what people call a folder of theirs must not be taken for it
_SECONDS = 20.0  # between two parts, at most
_KEPT = 8  # row groups in memory
_KEYS = pa.schema(  # texts as such: dictionaries are ten times slower to turn into Python's
    [
        *((name, pa.string()) for name in ("container", "path")),
        *((name, pa.int64()) for name in ("place", "bytes", "modified")),
    ]
)


class MeasuredParts:
    """The rows of the manifest in `folder` and of the parts in `folder`/scan, and new ones.

    Files that are damaged, or that another version wrote, count as missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / PARTS
        self._folder.mkdir(parents=True, exist_ok=True)
        self._new: list[dict[str, Any]] = []
        self._written = time.monotonic()
        self._groups: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._files: list[Path] = []  # not open: there may be more of them than a process may open
        self._starts: list[NDArray[np.int64]] = []  # of the row groups of each file
        parts = {int(path.stem[5:]): path for path in self._folder.glob("part-*.parquet") if path.stem[5:].isdecimal()}
        self._number = max(parts, default=-1) + 1
        keys, unread, files, rows = [], [], [], []
        for path in [folder / MANIFEST, *(parts[number] for number in sorted(parts))]:
            if (found := _read(path)) is None:
                continue
            places, starts = found
            keys.append(_keys(places))
            unread.append(_is_unread(places))
            files.append(np.full(len(places), len(self._files), np.int32))
            rows.append(np.arange(len(places)))
            self._files.append(path)
            self._starts.append(starts)
        all_keys = np.concatenate([np.zeros(0, np.uint64), *keys])
        order = np.argsort(all_keys, kind="stable")
        self._sorted = all_keys[order]
        self._unread = np.concatenate([np.zeros(0, bool), *unread])[order]
        self._file_of = np.concatenate([np.zeros(0, np.int32), *files])[order]
        self._row_of = np.concatenate([np.zeros(0, np.int64), *rows])[order]

    def known(self, places: pa.Table) -> NDArray[np.int64]:
        """For each image of a table with the columns `PLACE`, the number of its row for `take`; -1 if it was not measured."""
        keys = _keys(places)
        if not len(self._sorted):
            return np.full(len(keys), -1)
        at = np.searchsorted(self._sorted, keys, "right") - 1  # the latest
        return np.where((at >= 0) & (self._sorted[at] == keys), at, -1)

    def unread(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the images in the rows with these numbers could not be read, which may be the fault of the machine.

        Permissions and packages that were missing may be there now, although the file is the same.
        """
        return self._unread[numbers]

    def take(self, numbers: NDArray[np.int64]) -> pa.Table:
        """The rows with these numbers, in this order, with the columns `STORED`. Raises CurationError for a damaged file.

        The same rows are the same table, whichever files they are from: what is written of it has the same bytes.
        """
        pieces, order = [STORED.empty_table()], [np.zeros(0, np.int64)]
        files, rows = self._file_of[numbers], self._row_of[numbers]
        for file in np.unique(files).tolist():
            mine = np.flatnonzero(files == file)
            starts = self._starts[file]
            group_of = np.searchsorted(starts, rows[mine], "right") - 1
            for group in np.unique(group_of).tolist():
                here = mine[group_of == group]
                pieces.append(self._group(file, group).take(pa.array(rows[here] - starts[group])))
                order.append(here)
        back = np.argsort(np.concatenate(order), kind="stable")
        return _normal(pa.concat_tables(pieces).take(pa.array(back)))

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep new rows; they are on the disk after 20 s at most."""
        self._new.extend(rows)
        if len(self._new) >= ROWS or time.monotonic() - self._written > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are not on the disk yet."""
        self._written = time.monotonic()
        if self._new:
            with replacing(self._folder / f"part-{self._number:06d}.parquet") as path:
                pq.write_table(pa.Table.from_pylist(self._new, STORED), path, compression="zstd")
            self._new, self._number = [], self._number + 1

    def _group(self, file: int, group: int) -> pa.Table:
        if (file, group) not in self._groups:
            try:
                with pq.ParquetFile(self._files[file]) as opened:
                    rows = opened.read_row_group(group, STORED.names)
                    for batch in rows.to_batches():
                        check_rows(batch)
                    self._groups[file, group] = rows
            except (pa.ArrowException, ValueError, OSError) as error:
                first = str(error).splitlines()[0]
                raise CurationError(
                    f"{self._files[file]} cannot be read: {first}. Delete it, and run the same again"
                ) from error
            while len(self._groups) > _KEPT:
                self._groups.popitem(last=False)
        self._groups.move_to_end((file, group))
        return self._groups[file, group]


def _read(path: Path) -> tuple[pa.Table, NDArray[np.int64]] | None:
    """The places and faults of the rows of a file, and where its row groups start; None if there is no such file of use."""
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if any(names.count(one.name) != 1 or file.schema_arrow.field(one.name) != one for one in STORED):
                return None
            groups = (file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
            return file.read([*_KEYS.names, "fault"]), np.cumsum([0, *groups])
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno in MACHINE_FAULTS:
            raise
        return None


def _keys(places: pa.Table) -> NDArray[np.uint64]:
    """A 64-bit digest of where each image is and when it changed; of a file also its bytes (a row's are not listed)."""
    digests = bytearray()
    for batch in places.select(_KEYS.names).to_batches(max_chunksize=ROWS):
        columns = pa.Table.from_batches([batch]).cast(_KEYS).columns
        for name, path, place, size, modified in zip(*(column.to_pylist() for column in columns), strict=True):
            text = f"{name}\0{path}\0{place}\0{size if place is not None and place < 0 else ''}\0{modified}"
            digests += hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.frombuffer(bytes(digests), "<u8")


def _is_unread(rows: pa.Table) -> NDArray[np.bool_]:
    found = pc.equal(rows.column("fault").cast(pa.string()), "unreadable")
    return found.fill_null(False).to_numpy(zero_copy_only=False)


def _normal(rows: pa.Table) -> pa.Table:
    """The same rows in one chunk, with dictionaries of the texts in it, in the order in which they are first found."""
    columns = [
        column.cast(pa.string()).dictionary_encode() if pa.types.is_dictionary(column.type) else column
        for column in rows.combine_chunks().columns
    ]
    return pa.Table.from_arrays(columns, schema=STORED)
