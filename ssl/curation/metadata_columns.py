"""The columns of a user's table, and the columns of the manifest that they become."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any

from wildfern.printable import printable
from wildfern.ssl.curation.embedded_metadata import iso_date
from wildfern.ssl.curation.row_license import LICENSE_COLUMNS, VERSION_COLUMNS, row_license

__all__ = ["columns_words", "manifest_columns", "plain_name"]

# Names of columns, without case, spaces, _ and -.
_SYNONYMS = {  # columns of the manifest; the first that is filled counts
    "author": (
        *("author", "creator", "photographer", "artist", "byline", "owner", "ownername", "username", "creatorusername"),
        *("unickname", "nickname"),
    ),
    "source_url": (
        *("sourceurl", "pageurl", "originallandingurl", "foreignlandingurl", "landingpage", "landingurl", "url"),
        "originalurl",
    ),
    "date": ("date", "datetaken", "taken", "datetimeoriginal", "datecreated", "created"),
    "album": ("album", "albumtitle", "photoset", "collection"),
    "rights": ("rights", "copyright", "copyrightnotice", "usageterms"),
    "credit": ("credit", "creditline", "attribution"),
    "optout": ("optout",),
}
_COORDINATES = re.compile(
    r"(?:exif|geo)?(?:gps.*|(?:lat(?:itude)?|lon(?:g(?:itude)?)?|lng|latlon(?:g)?|latlng)(?:\(.*\)|deg(?:rees)?|decimal)?|"
    r"coord(?:s|inates?)?|geotag|geolocation|geo|altitude)"
)
_NO = {"0", "false", "no", "none", "f", "n"}
_MOST_SHOWN = 10  # names of either kind in `columns_words`
_MOST_OF_A_NAME = 40  # characters


@lru_cache(1024)
def plain_name(column: str) -> str:
    """The name of a column without case, spaces, _ and -."""
    return re.sub(r"[\s_-]", "", column).lower()


def columns_words(columns: Iterable[str], image_column: str) -> str:
    """Which columns are read as what, and which are not, such as "image from path, author from creator; other columns: lizenz".

    At most ten names of either kind, then "…", each of at most 40 characters; printable.
    """
    columns = list(columns)
    of_plain: dict[str, list[str]] = {}
    for column in columns:
        if column != image_column:
            of_plain.setdefault(plain_name(column), []).append(column)
    read = {"image": [image_column] if image_column in columns else []}
    for meaning, names in {"license": LICENSE_COLUMNS, **_SYNONYMS, "title": ("title",)}.items():
        read[meaning] = [column for name in names for column in of_plain.get(name, ())]
    if all(plain_name(column) in VERSION_COLUMNS for column in read["license"]):  # a version of nothing
        read["license"] = []
    read["has_gps"] = [one for name, some in of_plain.items() if _COORDINATES.fullmatch(name) for one in some]
    understood = [(meaning, column) for meaning, some in read.items() for column in some]
    parts = []
    for meaning, some in groupby(understood[:_MOST_SHOWN], itemgetter(0)):
        between = " and " if meaning == "license" else " or "  # of the others, the first that is filled counts
        parts.append(f"{meaning} from {between.join(_shown(column) for _, column in some)}")
    if len(understood) > _MOST_SHOWN:
        parts.append("…")
    known = {column for _, column in understood}
    others = [_shown(column) for column in columns if column not in known]
    if len(others) > _MOST_SHOWN:
        others[_MOST_SHOWN:] = ["…"]
    words = [", ".join(parts), f"other columns: {', '.join(others)}" if others else ""]
    return "; ".join(filter(None, words)) or "no columns"


def _shown(column: str) -> str:
    return printable(column[:_MOST_OF_A_NAME])


def manifest_columns(cells: Mapping[str, Any], image_column: str) -> dict[str, Any]:
    """The columns of the manifest that the cells of a row become; `UserMetadata.find` describes them."""
    columns: dict[str, Any] = {}
    rest = {key: cell for key, cell in cells.items() if key != image_column and _written(cell)}
    keys = {plain_name(key): key for key in reversed(rest)}
    without = _without_coordinates(rest)
    if without != rest:
        columns["has_gps"] = True
    for column, names in _SYNONYMS.items():
        if (key := next((keys[name] for name in names if name in keys), None)) is None:
            continue
        text = _written(rest[key])
        if column == "date":
            text = iso_date(text) or ""
            if not text:  # stays as it is
                continue
        if column == "optout":
            text = "" if text.lower() in _NO else f"metadata: {text}"
        if text:
            columns[column] = text
        without.pop(key, None)
    text, license = row_license(
        {name: _written(rest[keys[name]]) for name in LICENSE_COLUMNS if name in keys}, columns.get("source_url", "")
    )
    if text:
        columns |= {"license_text": text, "license": license, "license_from": "metadata"}
        for name in LICENSE_COLUMNS:
            without.pop(keys.get(name, ""), None)
    if "title" in keys and keys["title"] in without:
        without["title"] = without.pop(keys["title"])
    if without:
        columns["metadata"] = json.dumps(without, ensure_ascii=False)
    return columns


def _written(cell: Any) -> str:
    """A cell as text; empty for nothing."""
    if cell is None or cell in ([], {}) or cell != cell:  # NaN, as some programs write it
        return ""
    if isinstance(cell, list) and all(isinstance(one, str | int | float) for one in cell):
        return "; ".join(str(one) for one in cell)
    return (cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)).strip()


def _without_coordinates(cells: Any) -> Any:
    if isinstance(cells, dict):
        return {
            key: _without_coordinates(cell)
            for key, cell in cells.items()
            if not _COORDINATES.fullmatch(plain_name(key))
        }
    return [_without_coordinates(cell) for cell in cells] if isinstance(cells, list) else cells
