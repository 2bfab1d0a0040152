"""Rows of parquet files from an unpacked copy of their column, where they are more than fit into memory."""

import errno
import hashlib
import json
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wildfern.ssl.data.base import UnreadableImage
from wildfern.ssl.data.checked_copy import DamagedCopy
from wildfern.ssl.data.column_copy import NOT_COPIED, Cell, ColumnCopy, DamagedCell, index_size
from wildfern.ssl.data.copy_folder import NoCopy, gibibytes
from wildfern.ssl.data.image_column import ImageColumn
from wildfern.ssl.data.row_groups import RowGroups
from wildfern.ssl.data.shared_copy import find_copy, make_copy
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.worker_threads import check_wanted
from wildfern.ssl.tracking.current_progress import current_progress

_FORM = 2  # of the file and its cells; another one gets another name


class UnpackedRows(RowGroups):
    """Row groups; a column that takes more than `budget` bytes is unpacked into the user's cache folder, see `prepare`.

    The copies there take up to `disk` bytes (0: none is made). Reading `window` rows at a time needs none. `notes`: for the user.
    A copy that turns out to be damaged is made again, once.
    """

    def __init__(
        self,
        files: Sequence[Path | SteadyFile],
        columns: list[ImageColumn],
        budget: int,
        image_folder: Path | None,
        disk: float,
    ) -> None:
        self._disk = disk
        self.notes: list[str] = []
        super().__init__(files, columns, budget, image_folder)
        self._claimed = sum(self._sizes)

    def _begin(self) -> None:
        super()._begin()
        self._copy: ColumnCopy | None = None
        self._renewed = False
        self._looked, self._decided = False, not self._disk
        self._preparing = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in ("_copy", "_preparing")}

    def prepare(self, random_order: bool) -> None:
        """Find the copy of a column that is over the budget. With `random_order`, make it if there is none.

        So do two passes in which row groups were read again and again. Other threads and processes wait for the one that does.
        """
        if self._decided or not (self.dropped or self._claimed > self._budget):
            return
        with self._preparing:
            wanted = not self.window and (random_order or self.decoded > 2 * len(self._sizes))
            if self._decided or (self._looked and not wanted):
                return
            self._looked, self._copy = True, find_copy(self._copy_name(), len(self))
            if self._copy is None and wanted:
                self._copy = self._made()
            if self._copy is not None:
                size, path = gibibytes(self._copy.size), self._copy.path
                self.notes.append(
                    f"{self._words()} is read from an unpacked copy of {size}, which may be deleted: {path}"
                )
                self.drop_kept()
            self._decided = wanted or self._copy is not None

    def cell(self, row: int) -> Cell:
        """What is stored in the row, see `RowGroups`; raises DamagedCopy too."""
        while (copy := self._copy) is not None:
            try:
                cell = copy[row]
            except DamagedCell:
                self._renew(copy)
            except OSError as error:
                self._copy = None
                self.notes.append(f"{copy.path}: {error.strerror}; the parquet files are read instead")
            else:
                if cell.kind == NOT_COPIED:
                    break
                return cell
        return super().cell(row)

    def _made(self, instead_of: ColumnCopy | None = None) -> ColumnCopy | None:
        """The copy, made if there is none but a damaged one; None, and a note, where it cannot be."""
        name, what, expected = self._copy_name(), self._words(), self._claimed + index_size(len(self))
        try:
            return make_copy(name, self._all_cells(what), len(self), expected, self._disk, what, instead_of)
        except NoCopy as reason:
            self.notes.append(f"{what} is slow to read in random order, as there is no unpacked copy: {reason}")
            return None

    def _renew(self, damaged: ColumnCopy) -> None:
        """Use another copy instead of this one. Raises DamagedCopy if that was done before."""
        with self._preparing:
            if self._copy is not damaged:  # another thread did
                return
            copy = f"{damaged.path}, the copy of {self._words()}, is damaged"
            if self._renewed:
                raise DamagedCopy(
                    errno.EIO,
                    f"{copy}, although it was made again: check the disk and the memory of this machine, or set "
                    "WILDFERN_CACHE to a folder on another disk",
                )
            warnings.warn(f"{copy}: making it again", stacklevel=2)
            self._copy = self._made(instead_of=damaged)
            self._renewed = True

    def _copy_name(self) -> str:
        """The same for the same column of the same files, as long as they are not changed."""
        files = [
            [file.full_path, *file.facts, column.name, column.field, column.path_field]
            for file, column in zip(self.noted, self._columns, strict=True)
        ]
        return hashlib.sha256(json.dumps([_FORM, files]).encode()).hexdigest()[:32]

    def _words(self) -> str:
        others = f" and {len(self.files) - 1:,} more" if len(self.files) > 1 else ""
        return f"column {self._columns[0].name} of {self.files[0]}{others}"

    def _all_cells(self, what: str) -> Iterator[Iterator[Cell]]:
        """The cells of each row group in turn."""
        progress, count = current_progress(), len(self._sizes)
        for group in range(count):
            check_wanted()
            progress.count(group, count, "row groups", f"unpacking {what}")
            try:
                cells = self.cells(group)
            except UnreadableImage:
                cells = (Cell(NOT_COPIED) for _ in range(self._rows_of(group)))
            yield cells
