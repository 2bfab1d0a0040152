"""Marks made by hand on the review page: a CSV file with a line for each marked image."""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, cast

from wildfern.files import read_bytes, write_text
from wildfern.printable import printable
from wildfern.ssl.curation.manifest import CurationError

Mark = Literal["keep", "drop"]

HEADER = ["sha256", "path", "mark"]
MARKS: tuple[Mark, ...] = ("keep", "drop")
MOST_BYTES = 64 * 2**20
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with these a spreadsheet takes a cell for a formula
_SHA256 = re.compile("[0-9a-f]{64}")


def read_marks(path: str | Path) -> dict[str, Mark]:
    """The marks of a CSV file by the SHA-256 of the image; of several marks of one image the last counts.

    UTF-8 with or without a byte order mark, lines end with CRLF or LF, cells are quoted as in RFC 4180. The column `path` is for
    the reader only. Raises CurationError for a missing, malformed or too large file, with the number of the line.
    """
    return {sha256: mark for sha256, (_, mark) in _read(path).items()}


def _read(path: str | Path) -> dict[str, tuple[str, Mark]]:
    try:
        content = read_bytes(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise CurationError(f"{printable(path)} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CurationError(f"{printable(path)} line {line}: is not UTF-8; save it as CSV in UTF-8") from error
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    marks: dict[str, tuple[str, Mark]] = {}
    line, found = 1, None
    try:
        for row in reader:
            if found is None:
                found = row
                _check_header(row, path)
            elif row:
                sha256, mark = _marked(row, f"{printable(path)} line {line}")
                marks[sha256] = row[1], mark
            line = reader.line_num + 1  # where the next row starts: a quoted path may hold line breaks
    except csv.Error as error:
        raise CurationError(f"{printable(path)} line {line}: {error}; quote cells as in RFC 4180") from error
    if found is None:
        raise CurationError(f"{printable(path)} is empty; its first line must be {','.join(HEADER)}")
    return marks


def write_marks(path: str | Path, marks: Mapping[str, Mark], paths: Mapping[str, str]) -> None:
    """Write marks by SHA-256, with the paths of the images as far as known, in the form that `read_marks` reads.

    A path that a spreadsheet would take for a formula is written with ./ before it. Raises ValueError for other marks, OSError.
    """
    rows = [(sha256, cell_of_path(paths.get(sha256, "")), mark) for sha256, mark in marks.items()]
    for sha256, _, mark in rows:
        _marked([sha256, "", mark], "write_marks")
    write_text(path, csv_text([HEADER, *rows]))


def join_marks(path: str | Path, files: Iterable[Path]) -> None:
    """Write the marks of all these files into one, with their paths; later ones replace earlier ones. Raises as `read_marks`."""
    found: dict[str, tuple[str, Mark]] = {}
    for file in files:
        for sha256, (name, mark) in _read(file).items():
            found[sha256] = name or found.get(sha256, ("", mark))[0], mark
    write_marks(
        path, {sha256: mark for sha256, (_, mark) in found.items()}, {one: name for one, (name, _) in found.items()}
    )


def cell_of_path(path: str) -> str:
    return f"./{path}" if path.startswith(FORMULA) else path


def csv_text(rows: Iterable[Iterable[str]]) -> str:
    """The rows as RFC 4180 has them, lines ended with CRLF."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _check_header(row: list[str], path: str | Path) -> None:
    if row != HEADER:
        found = printable(",".join(row)[:80])
        raise CurationError(
            f"{printable(path)} line 1: must be {','.join(HEADER)}, separated by commas, and is '{found}'"
        )


def _marked(row: list[str], where: str) -> tuple[str, Mark]:
    if len(row) != len(HEADER):
        raise CurationError(f"{where}: needs {len(HEADER)} cells, {','.join(HEADER)}, and has {len(row)}")
    sha256, _, mark = row
    if not _SHA256.fullmatch(sha256):
        raise CurationError(f"{where}: sha256 must be 64 digits of 0-9 and a-f, and is '{printable(sha256[:80])}'")
    if mark not in MARKS:
        raise CurationError(f"{where}: mark must be keep or drop, and is '{printable(mark[:80])}'")
    return sha256, cast(Mark, mark)
