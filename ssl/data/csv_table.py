"""A table in a CSV file, which may be damaged or come from a stranger: names of columns, and the texts in some of them."""

import csv
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.csv_faults import first_fault
from wildfern.ssl.data.steady_file import SteadyFile

MOST_BYTES = 2**30
MOST_LINE_BYTES = 2**20
_SHOWN = 20  # columns in a message


class CsvTable:
    """The table at `path`: UTF-8; a first line with the names of the columns, then the rows; commas, semicolons or tabs.

    Raises DataError for a file that is missing, too large, not UTF-8, or without different names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = SteadyFile.of(path)
        if self._file.size > MOST_BYTES:
            raise DataError(f"{path} is larger than {MOST_BYTES:,} bytes, the limit for a table")
        with self._opened() as file:
            line = file.readline(MOST_LINE_BYTES)
        try:
            header = line.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(f"{path} is not UTF-8: save the table as CSV in UTF-8") from None
        if "\r" in header.rstrip("\r\n"):
            raise DataError(f"{path} has lines that end with CR alone: save it with line ends LF or CRLF")
        self._delimiter = max(",;\t", key=header.count)
        try:
            self.columns: list[str] = next(csv.reader([header], delimiter=self._delimiter), [])
        except csv.Error as error:
            raise DataError(f"{path}, line 1: {error}; it must name the columns, as in filename,y,split") from error
        if not any(self.columns):
            raise DataError(f"{path} needs a first line with names of columns, such as filename,y,split")
        seen: set[str] = set()
        for name in filter(None, self.columns):
            if name in seen:
                raise DataError(f"{path} has two columns {name!r}")
            seen.add(name)

    def check_column(self, name: str, key: str) -> None:
        """Raise DataError, with the nearest name, if there is no column `name`, which the argument `key` asks for."""
        if not name or name not in self.columns:
            near = self.nearest(name)
            hint = f"set {key} to {near!r}?" if near else f"it has {self.listed()}"
            raise DataError(f"{self.path} has no column {name!r} ({key}); {hint}")

    def nearest(self, name: str) -> str | None:
        """The column with the most similar name, in any case."""
        by_case = {column.casefold(): column for column in self.columns if column}
        near = get_close_matches(name.casefold(), by_case, 1, 0.6)
        return by_case[near[0]] if near else None

    def listed(self) -> str:
        """The names of the columns for a message."""
        names = [name for name in self.columns if name]
        return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")

    def read(self, columns: Iterable[str]) -> dict[str, Any]:
        """The cells of these columns: arrays of pyarrow of texts without space around them, one text for each row.

        Raises DataError, with the line, for a row with another number of cells, of too many bytes or not UTF-8, and for an open
        quotation mark.
        """
        import pyarrow as pa
        import pyarrow.compute as compute
        from pyarrow import csv as arrow_csv

        wanted = list(dict.fromkeys(columns))
        try:
            with self._opened() as file:
                table = arrow_csv.read_csv(
                    file,
                    # One thread: the message about a damaged row has its number.
                    arrow_csv.ReadOptions(
                        use_threads=False, block_size=MOST_LINE_BYTES, column_names=self.columns, skip_rows=1
                    ),
                    arrow_csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                    arrow_csv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())),
                )
        except (pa.ArrowException, UnicodeDecodeError) as error:
            words = self._fault() or " ".join(str(error).split())[:300]
            raise DataError(f"{self.path} cannot be read: {words}") from error
        # pyarrow takes a quotation mark that is not closed for one of all that follows, and its rows would be lost.
        if self._quotation_marks() % 2 and (fault := self._fault()):
            raise DataError(f"{self.path} cannot be read: {fault}")
        trimmed = {name: compute.utf8_trim_whitespace(table[name]) for name in wanted}
        return {name: pa.concat_arrays(column.chunks) for name, column in trimmed.items() if column.num_chunks}

    def _fault(self) -> str | None:
        with self._opened() as file:
            return first_fault(file, self._delimiter, len(self.columns), MOST_LINE_BYTES)

    def _quotation_marks(self) -> int:
        with self._opened() as file:
            return sum(part.count(b'"') for part in iter(lambda: file.read(MOST_LINE_BYTES), b""))

    def _opened(self) -> BinaryIO:
        try:
            return self._file.open()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from error
