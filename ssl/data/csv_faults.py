"""The first row of a CSV file that cannot be read, in words with its line: pyarrow names rows, and neither lines nor remedies."""

from typing import BinaryIO


def first_fault(file: BinaryIO, delimiter: str, columns: int, most_bytes: int) -> str | None:
    """`line 3 has 1 cell, but …`; None if each row has `columns` cells, is UTF-8, and is of at most `most_bytes` bytes.

    A row may be of several lines, and the line is its first one. Empty lines are no rows. Reads the file to the fault.
    """
    line, first, row, cells, quoted = 0, 1, bytearray(), 1, False
    while part := file.readline(most_bytes + 1):
        if not quoted:
            first, row, cells = line + 1, bytearray(), 1
        line += 1
        row += part
        if len(row) > most_bytes:
            unclosed = "close its quotation mark, or shorten" if quoted or b'"' in row else "shorten"
            return f"line {first} has a row of more than {most_bytes:,} bytes, the limit: {unclosed} its cells"
        more, quoted = _scanned(part, delimiter.encode(), quoted)
        cells += more
        if quoted:
            continue
        if fault := _fault_of_row(row, cells, columns, delimiter):
            return f"line {first} {fault}"
    return (
        f"line {first} has a quotation mark that is not closed: close it, or double it if it is text"
        if quoted
        else None
    )


def _fault_of_row(row: bytearray, cells: int, columns: int, delimiter: str) -> str | None:
    try:
        row.decode()
    except UnicodeDecodeError:
        return "is not UTF-8: save the table as CSV in UTF-8"
    if cells == columns or not row.strip(b"\r\n"):
        return None
    return (
        f"has {cells} cell{'s' * (cells > 1)}, but the first line names {columns} column{'s' * (columns > 1)}: a row has a cell "
        f"for each, and quotation marks around one that contains {delimiter!r}"
    )


def _scanned(line: bytes, delimiter: bytes, quoted: bool) -> tuple[int, bool]:
    """The delimiters of a line outside of quotation marks, which begin at the start of a cell; whether it ends inside of them."""
    found, place, end = 0, 0, len(line)
    while place < end:
        if quoted:
            close = line.find(b'"', place)
            if close < 0:
                return found, True
            doubled = line[close + 1 : close + 2] == b'"'
            quoted, place = doubled, close + 1 + doubled
            if doubled:
                continue
        elif line[place : place + 1] == b'"':
            quoted, place = True, place + 1
            continue
        following = line.find(delimiter, place)
        if following < 0:
            return found, False
        found, place = found + 1, following + 1
    return found, quoted
