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
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wildfern.files import replacing
from wildfern.ssl.curation.manifest import MANIFEST, ROWS, STORED

PARTS = "scan"
_SECONDS = 20.0  # between two parts, at most
_KEPT = 8  # row groups in memory
_KEYS = ["container", "path", "place", "bytes", "modified"]


class MeasuredParts:
    """The rows of the manifest in `folder` and of the parts in `folder`/scan, and new ones."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / PARTS
        self._folder.mkdir(parents=True, exist_ok=True)
        self._rows: list[dict[str, Any]] = []
        self._written = time.monotonic()
        self._number = 0
        self._files: list[pq.ParquetFile] = []
        self._groups: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        keys, files, rows = [], [], []
        for path in [folder / MANIFEST, *sorted(self._folder.glob("part-*.parquet"))]:
            try:
                found = pq.ParquetFile(path)
                places = found.read(_KEYS)
            except (OSError, pa.ArrowException, KeyError):  # none yet, or damaged: it is measured again
                continue
            keys.append(_keys(places))
            files.append(np.full(len(places), len(self._files), np.int32))
            rows.append(np.arange(len(places)))
            self._files.append(found)
        names = [int(path.stem.removeprefix("part-")) for path in self._folder.glob("part-*.parquet")]
        self._number = max(names, default=-1) + 1
        all_keys = np.concatenate(keys) if keys else np.zeros(0, np.uint64)
        order = np.argsort(all_keys, kind="stable")
        self._sorted = all_keys[order]
        self._file_of = (np.concatenate(files) if files else np.zeros(0, np.int32))[order]
        self._row_of = (np.concatenate(rows) if rows else np.zeros(0, np.int64))[order]

    def known(self, places: pa.Table) -> NDArray[np.int64]:
        """For each image of a table with the columns `PLACE`, the number of its row for `take`; -1 if it was not measured."""
        keys = _keys(places)
        if not len(self._sorted):
            return np.full(len(keys), -1)
        at = np.searchsorted(self._sorted, keys, "right") - 1  # the latest
        return np.where((at >= 0) & (self._sorted[at] == keys), at, -1)

    def take(self, numbers: NDArray[np.int64]) -> pa.Table:
        """The rows with these numbers, in this order, with the columns `STORED`."""
        pieces, order = [], []
        files, rows = self._file_of[numbers], self._row_of[numbers]
        for file in np.unique(files).tolist():
            mine = np.flatnonzero(files == file)
            metadata = self._files[file].metadata
            starts = np.cumsum([0, *(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))])
            group_of = np.searchsorted(starts, rows[mine], "right") - 1
            for group in np.unique(group_of).tolist():
                here = mine[group_of == group]
                pieces.append(self._group(file, group).take(pa.array(rows[here] - starts[group])))
                order.append(here)
        if not pieces:
            return STORED.empty_table()
        back = np.argsort(np.concatenate(order), kind="stable")
        return pa.concat_tables(pieces).take(pa.array(back))

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep new rows; they are on the disk after 20 s at most."""
        self._rows.extend(rows)
        if len(self._rows) >= ROWS or time.monotonic() - self._written > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are not on the disk yet."""
        self._written = time.monotonic()
        if self._rows:
            with replacing(self._folder / f"part-{self._number:06d}.parquet") as path:
                pq.write_table(pa.Table.from_pylist(self._rows, STORED), path, compression="zstd")
            self._rows, self._number = [], self._number + 1

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _group(self, file: int, group: int) -> pa.Table:
        if (file, group) not in self._groups:
            self._groups[file, group] = self._files[file].read_row_group(group, STORED.names).cast(STORED)
            while len(self._groups) > _KEPT:
                self._groups.popitem(last=False)
        self._groups.move_to_end((file, group))
        return self._groups[file, group]


def _keys(places: pa.Table) -> NDArray[np.uint64]:
    """A 64-bit digest of where each image is and when it changed; of a file also its bytes (a row's are not listed)."""
    columns = [places.column(name).to_pylist() for name in _KEYS]
    digests = (
        hashlib.blake2b(f"{name}\0{path}\0{place}\0{size if place < 0 else ''}\0{modified}".encode(), digest_size=8)
        for name, path, place, size, modified in zip(*columns, strict=True)
    )
    return np.frombuffer(b"".join(digest.digest() for digest in digests), "<u8")
