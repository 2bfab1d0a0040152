"""Who made the images of a dataset, under which license: the table that CC BY asks for; and why other images were left out.

Both are CSV (RFC 4180) in UTF-8. A program for tables runs a cell that starts with =, +, -, @, a tab or a line break as a
formula, and these texts come from strangers: such a cell, and one that starts with an apostrophe, gets an apostrophe before it.
A reader has the text back by removing the first character of each cell that starts with one.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wildfern.bounded_json import parse_json
from wildfern.files import replacing
from wildfern.ssl.curation.manifest import KEEP
from wildfern.ssl.curation.spdx import license_url

__all__ = ["UNCHANGED", "write_attribution", "write_rejected"]

UNCHANGED = "none: decoded while training"
_ATTRIBUTION = (
    *(
        "path",
        "sha256",
        "title",
        "author",
        "license",
        "license_url",
        "license_text",
        "rights",
        "source_url",
        "date",
        "credit",
    ),
    "changes",
)
_REJECTED = ("path", "sha256", "decision", "rule", "value", "detail")
_FORMULA = tuple("=+-@\t\r\n＝＋－＠'")

Row = Mapping[str, Any]


def write_attribution(path: str | Path, rows: Iterable[Row], changes: str = UNCHANGED) -> int:
    """Write a line for each of these rows of a manifest, and return their number.

    - rows: mappings by the columns of the manifest; those of the kept images, for the attribution of a dataset.
    - changes: what was done to the images, which CC BY asks to indicate; the `changes` of a row come first.

    Replaces the file as a whole, or leaves it as it is.
    """
    return _write(path, _ATTRIBUTION, (_attribution(row, changes) for row in rows))


def write_rejected(path: str | Path, rows: Iterable[Row]) -> int:
    """Write a line for each reason for which an image of these rows was not kept, and return the number of lines.

    Rows of kept images have none. An image that was left out without a reason has a line without a rule.
    """
    return _write(path, _REJECTED, (line for row in rows for line in _reasons(row)))


def _attribution(row: Row, changes: str) -> list[Any]:
    license = row.get("license")
    found = {
        "changes": changes,
        **row,
        "title": _title(row),
        "license_url": license_url(license) if license else None,
    }
    return [found.get(column) for column in _ATTRIBUTION]


def _title(row: Row) -> Any:
    try:
        metadata = parse_json(row.get("metadata") or "{}")
    except ValueError:
        return None
    return metadata.get("title") if isinstance(metadata, dict) else None


def _reasons(row: Row) -> Iterable[list[Any]]:
    if row.get("decision") == KEEP:
        return
    reasons = [reason for reason in row.get("reasons") or () if reason["action"] != KEEP]
    for reason in reasons or [{"rule": None, "value": None, "detail": None}]:
        yield [
            row.get("path"),
            row.get("sha256"),
            row.get("decision"),
            reason["rule"],
            reason["value"],
            reason["detail"],
        ]


def _write(path: str | Path, head: Iterable[str], lines: Iterable[list[Any]]) -> int:
    count = 0
    with replacing(path) as beside, beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for line in lines:
            writer.writerow([_cell(value) for value in line])
            count += 1
    return count


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int | float):  # a number is no formula
        return value
    text = str(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
