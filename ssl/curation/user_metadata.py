"""The user's own table of licenses, authors and more: CSV, JSON or JSON lines, a row an image.

In memory a row takes 32 bytes, the name of its image and its cells as JSON: with YFCC100M's columns some 240 bytes.
"""

import csv
import json
import os
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from wildfern.bounded_json import MOST_BYTES, parse_json
from wildfern.files import UnsafeFile, open_reading, read_bytes, read_lines
from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.metadata_columns import columns_words, manifest_columns, plain_name

__all__ = ["UserMetadata"]

_MOST_BYTES = 2**31  # of a file
_MARK = b"\xef\xbb\xbf"  # of UTF-8, which some programs write first
_MOST_CELL = 2**16  # characters
_MOST_ROW = 2**18  # bytes
_MOST_COLUMNS = 1000  # names that `columns_words` knows of mappings, which may each have others

# Names of columns, without case, spaces, _ and -.
_IMAGE = ("path", "filepath", "file", "filename", "name", "image", "imagepath", "imagefile", "imagename")


class UserMetadata:
    """The rows of a file by the name of their image; `read` makes it."""

    def __init__(self, path: Path, column: str, columns: list[str] | None) -> None:
        self.path = path
        self._column = column
        self._columns = columns  # of rows that are lists of cells
        self._keys: dict[str, None] = dict.fromkeys(columns or ())  # of all rows, in their order
        self._names = bytearray()  # of images, each reversed
        self._texts = bytearray()  # rows as JSON
        self._name_ends = array("q", [0])
        self._text_ends = array("q", [0])
        self._lines = array("i")
        self._order = array("i")  # rows by reversed name: names that end alike are side by side
        self._used = array("Q")  # hash of the image's path; 0: no image
        self._unfound = ""
        self.by_name_alone = 0  # rows that name a folder, found for an image that has none

    @classmethod
    def read(cls, path: str | Path, column: str | None = None) -> "UserMetadata":
        """Rows of a .csv or .tsv (UTF-8; commas, semicolons or tabs), .json (a list of mappings, or name: mapping) or .jsonl.

        - column: of the names of the images; None: path, file, filename, name or image, the first that there is.

        Raises CurationError, with the line, for a file that cannot be read or is larger than 2 GiB (.json: 64 MiB), a column that
        is missing, a row with another number of cells, a text of more than 65,536 characters, and two different rows of an image.
        """
        path = Path(path)
        readers: dict[str, Callable[[Path, str | None], UserMetadata]] = {
            ".csv": _of_csv,
            ".tsv": _of_csv,
            ".json": _of_json,
            ".jsonl": _of_json_lines,
            ".ndjson": _of_json_lines,
        }
        if path.suffix.lower() not in readers:
            raise CurationError(f"{path}: metadata is read from a .csv, .tsv, .json or .jsonl file")
        try:
            rows = readers[path.suffix.lower()](path, column)
        except FileNotFoundError:
            raise CurationError(f"there is no file {path}") from None
        except UnsafeFile as error:
            raise CurationError(f"{path} {error.strerror}") from error
        except OSError as error:
            raise CurationError(f"{path} cannot be read: {error.strerror}") from error
        if not len(rows):
            raise CurationError(f"{path} has no rows")
        rows._sort()
        return rows

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def columns_words(self) -> str:
        """Which columns were read as what, and which were not, such as "image from path, author from owner; other columns: tags".

        At most ten names of either kind, then "…"; printable.
        """
        return columns_words(self._keys, self._column)

    def find(self, path: str) -> dict[str, Any] | None:
        """Columns of the manifest for the image with this relative path ("/" between folders); None if no row is for it.

        A row is for it if its name is that path; else if it is the only one whose name ends with the path or is an end of it,
        from a folder on; else the same for the path without its extension. Raises CurationError if that row was found for another
        image before.

        license_text comes with license, of all columns that name one (`row_license`), and license_from is "metadata". Columns
        that are not known, and a date that is none, are JSON in `metadata`. Coordinates are left out; has_gps is True instead.
        """
        name = _normal(path)
        row = self._row(name)
        if row is None and "." in name.rsplit("/", 1)[-1]:
            row = self._row(name.rsplit(".", 1)[0])
        if row is None:
            self._unfound = path
            return None
        digest = int.from_bytes(blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()) | 1
        if self._used[row] not in (0, digest):
            raise CurationError(
                f"{self._place(row)}: {self._name(row)!r} fits more than one image, {path} among them: write the whole path"
            )
        if self._used[row] == 0 and "/" not in name and "/" in self._name(row):
            self.by_name_alone += 1
        self._used[row] = digest
        cells = parse_json(bytes(self._texts[self._text_ends[row] : self._text_ends[row + 1]]))
        return manifest_columns(self._mapping(cells), self._column)

    def unmatched(self) -> tuple[int, list[str]]:
        """How many rows no image had so far, and the names of the first three."""
        rows = [row for row in sorted(self._order) if not self._used[row]]
        return len(rows), [self._name(row) for row in rows[:3]]

    def check_used(self) -> None:
        """Raise CurationError if no row was for any image."""
        if not any(self._used):
            raise CurationError(
                f"{self.path}: none of its {len(self):,} rows is for an image; a name in {self._column!r} is {self._name(0)!r}"
                + (f", a path of an image {self._unfound!r}" if self._unfound else "")
            )

    def _add(self, name: Any, cells: list[Any] | dict[str, Any], line: int) -> None:
        place = f"{self.path}, {self._unit()} {line}"
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or not (name := _normal(name)):
            raise CurationError(f"{place}: {self._column!r} has no name of an image")
        for key, cell in self._mapping(cells).items():
            if len(self._keys) < _MOST_COLUMNS:
                self._keys.setdefault(key[:200])
            if isinstance(cell, str) and len(cell) > _MOST_CELL:
                raise CurationError(f"{place}: {key!r} has {len(cell):,} characters; at most {_MOST_CELL:,} are read")
        text = json.dumps(cells, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        if len(text) > _MOST_ROW:
            raise CurationError(f"{place} has {len(text):,} bytes; at most {_MOST_ROW:,} are read")
        self._names += _reversed(name)
        self._texts += text
        self._name_ends.append(len(self._names))
        self._text_ends.append(len(self._texts))
        self._lines.append(line)

    def _mapping(self, cells: list[Any] | dict[str, Any]) -> dict[str, Any]:
        return cells if isinstance(cells, dict) else dict(zip(self._columns or (), cells, strict=True))

    def _sort(self) -> None:
        self._order = array(
            "i", sorted(range(len(self)), key=self._key)
        )  # stable: of equal names the first line is first
        kept = self._order[:1]
        for row in self._order[1:]:
            first = kept[-1]
            if self._key(first) != self._key(row):
                kept.append(row)
            elif self._text(first) != self._text(row):
                raise CurationError(
                    f"{self._place(row)}: {self._name(row)!r} has a different row in {self._unit()} {self._lines[first]}"
                )
        self._order = kept
        self._used = array("Q", bytes(8 * len(self)))

    def _row(self, name: str) -> int | None:
        """The row of this name; else the only one whose name ends with it, or is an end of it, from a folder on."""
        key = _reversed(name)
        if (row := self._exact(key)) is not None:
            return row
        parts = name.split("/")
        fitting = [self._exact(_reversed("/".join(parts[start:]))) for start in range(1, len(parts))]
        at = bisect_left(self._order, key + b"/", key=self._key)
        fitting += [row for row in self._order[at : at + 2] if self._key(row).startswith(key + b"/")]
        found = [row for row in fitting if row is not None]
        return found[0] if len(found) == 1 else None

    def _exact(self, key: bytes) -> int | None:
        at = bisect_left(self._order, key, key=self._key)
        return self._order[at] if at < len(self._order) and self._key(self._order[at]) == key else None

    def _key(self, row: int) -> bytes:
        return bytes(self._names[self._name_ends[row] : self._name_ends[row + 1]])

    def _text(self, row: int) -> bytes:
        return bytes(self._texts[self._text_ends[row] : self._text_ends[row + 1]])

    def _name(self, row: int) -> str:
        return self._key(row)[::-1].decode("utf-8", "replace")

    def _unit(self) -> str:
        return "entry" if self.path.suffix.lower() == ".json" else "line"

    def _place(self, row: int) -> str:
        return f"{self.path}, {self._unit()} {self._lines[row]}"


def _normal(name: str) -> str:
    """A path with "/", without "./" and a first "/"; composed, as some systems decompose the letters of names."""
    name = name.strip().replace("\\", "/")
    while name.startswith(("./", "/")):
        name = name.removeprefix(".").removeprefix("/")
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _reversed(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")[::-1]


def _image_column(path: Path, columns: list[str], wanted: str | None) -> str:
    by_name = {plain_name(column): column for column in reversed(columns)}
    if wanted is not None:
        if wanted in columns:
            return wanted
        if plain_name(wanted) in by_name:
            return by_name[plain_name(wanted)]
        raise CurationError(f"{path} has no column {wanted!r}; it has {_listed(columns)}")
    for name in _IMAGE:
        if name in by_name:
            return by_name[name]
    raise CurationError(
        f"{path} has no column path, file, filename, name or image for the image: say which of {_listed(columns)} it is"
    )


def _listed(columns: list[str]) -> str:
    return ", ".join(repr(column[:50]) for column in columns[:20])


def _of_csv(path: Path, wanted: str | None) -> UserMetadata:
    with open_reading(path.resolve()) as file:
        lines = _text_lines(path, file)
        header = next(lines, "")
        delimiter = max(",;\t", key=lambda one: len(next(csv.reader([header], delimiter=one), [])))
        columns = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        columns = [name or f"column {number}" for number, name in enumerate(columns, start=1)]
        if twice := [name for number, name in enumerate(columns) if name in columns[:number]]:
            raise CurationError(f"{path} has two columns {twice[0]!r}")
        column = _image_column(path, columns, wanted)
        at = columns.index(column)
        rows = UserMetadata(path, column, columns)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                if not cells:  # an empty line
                    continue
                if len(cells) != len(columns):
                    raise CurationError(
                        f"{path}, line {reader.line_num + 1}: {len(cells)} cells, but the header has {len(columns)} columns; "
                        f"a text with {delimiter!r} needs quotation marks"
                    )
                rows._add(cells[at], cells, reader.line_num + 1)
        except csv.Error as error:
            raise CurationError(
                f"{path}, line {reader.line_num + 1}: {error}; is a quotation mark not closed, or not doubled within a text?"
            ) from error
    return rows


def _text_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    if os.fstat(file.fileno()).st_size > _MOST_BYTES:
        raise CurationError(f"{path} is larger than 2 GiB, the limit for metadata")
    for number in range(1, 2**31):
        line = file.readline(_MOST_ROW + 1)
        if not line:
            return
        if len(line) > _MOST_ROW:
            raise CurationError(f"{path}, line {number} has more than {_MOST_ROW:,} bytes")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise CurationError(f"{path}, line {number} is not UTF-8: save the table as CSV in UTF-8") from None


def _of_json(path: Path, wanted: str | None) -> UserMetadata:
    try:
        value = parse_json(read_bytes(path.resolve(), MOST_BYTES).removeprefix(_MARK))
    except ValueError as error:
        raise CurationError(f"{path} is no JSON: {error}; a file with one mapping a line is called .jsonl") from error
    except UnsafeFile as error:
        raise CurationError(f"{path} {error.strerror}; a .jsonl, with one mapping a line, may be larger") from error
    if isinstance(value, dict):
        entries = [(name, row) for name, row in value.items()]
        rows = UserMetadata(path, "name", None)
        for number, (name, row) in enumerate(entries, start=1):
            if not isinstance(row, dict):
                raise CurationError(
                    f"{path}: the value of {name[:50]!r} is no mapping: write image name: {{column: value, …}}"
                )
            rows._add(name, row, number)
        return rows
    if not isinstance(value, list):
        raise CurationError(f"{path} is neither a list of mappings nor a mapping of image names to mappings")
    return _of_mappings(path, wanted, enumerate(value, start=1))


def _of_json_lines(path: Path, wanted: str | None) -> UserMetadata:
    def entries() -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(read_lines(path.resolve(), _MOST_ROW), start=1):
            if line is None:
                raise CurationError(f"{path}, line {number} has more than {_MOST_ROW:,} bytes")
            if not line.strip():
                continue
            try:
                yield number, parse_json(line.removeprefix(_MARK) if number == 1 else line)
            except ValueError as error:
                raise CurationError(f"{path}, line {number} is no JSON: {error}") from error

    if path.resolve().stat().st_size > _MOST_BYTES:
        raise CurationError(f"{path} is larger than 2 GiB, the limit for metadata")
    return _of_mappings(path, wanted, entries())


def _of_mappings(path: Path, wanted: str | None, entries: Iterator[tuple[int, Any]]) -> UserMetadata:
    rows = UserMetadata(path, "", None)
    for number, entry in entries:
        if not isinstance(entry, dict):
            raise CurationError(f"{path}, {rows._unit()} {number} is no mapping of columns to values")
        rows._column = rows._column or _image_column(path, list(entry), wanted)
        rows._add(entry.get(rows._column), entry, number)
    return rows
