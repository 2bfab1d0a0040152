"""The license that a row of a user's table names in several columns: by name and version, by address, by Flickr's number."""

import re
from collections.abc import Mapping
from functools import lru_cache

from wildfern.ssl.curation.spdx import RESERVED, UNRESTRICTED, US_WORK, common_license, license_id

__all__ = ["FLICKR", "LICENSE_COLUMNS", "VERSION_COLUMNS", "row_license"]

# Names of columns, without case, spaces, _ and -.
_NAME = ("license", "licence", "licensename", "licencename", "licensetext", "licensetype", "spdx")
_FLICKR = ("flickrlicense", "flickrlicence", "flickrlicenseid", "licenseflickr", "licenceflickr")
VERSION_COLUMNS = ("licenseversion", "licenceversion")
_ADDRESS = ("licenseurl", "licenceurl")
LICENSE_COLUMNS = (*_NAME, *_FLICKR, *VERSION_COLUMNS, *_ADDRESS)

# Numbers of flickr.photos.licenses.getInfo; those from 11 on since June 2025.
FLICKR = {
    "0": RESERVED,
    "1": "CC-BY-NC-SA-2.0",
    "2": "CC-BY-NC-2.0",
    "3": "CC-BY-NC-ND-2.0",
    "4": "CC-BY-2.0",
    "5": "CC-BY-SA-2.0",
    "6": "CC-BY-ND-2.0",
    "7": UNRESTRICTED,
    "8": US_WORK,
    "9": "CC0-1.0",
    "10": "CC-PDM-1.0",
    "11": "CC-BY-4.0",
    "12": "CC-BY-SA-4.0",
    "13": "CC-BY-ND-4.0",
    "14": "CC-BY-NC-4.0",
    "15": "CC-BY-NC-SA-4.0",
    "16": "CC-BY-NC-ND-4.0",
}
_NUMBER = re.compile(r"(\d{1,2})(\.0)?")  # some programs write 4.0 where other rows of the column are empty
_ON_FLICKR = re.compile(r"(?:https?://)?(?:[a-z0-9-]+\.)*flickr\.com(?::\d+)?(?:[/?#]|$)", re.IGNORECASE)
_UNVERSIONED = re.compile(r"LicenseRef-(CC-BY.*-)unversioned")
_OF_CC = re.compile(r"(?:LicenseRef-)?CC[A-Z0-]*-(\d\.\d)(?:-[A-Z]+)?")
_PLAIN_VERSION = re.compile(r"v?\.?\s*(\d+(?:\.\d+)?)", re.IGNORECASE)


def row_license(cells: Mapping[str, str], source_url: str = "") -> tuple[str, str | None]:
    """What a row says of its license, and the id of it, as of `license_id`; an empty text if it says nothing.

    - cells: those that are filled, by the name of their column without case, spaces, _ and -.
    - source_url: the page of the image.

    A version in a column of its own belongs to the license in the other columns. A number is Flickr's number of a license only in
    a column whose name says so, or if the page is on flickr.com: files in COCO's format, among others, number lists of their own.
    Columns that name different licenses or versions name none.
    """
    version = next((cells[column] for column in VERSION_COLUMNS if column in cells), "")
    names = [_name(cells[column], column, source_url) for column in (*_NAME, *_FLICKR) if column in cells]
    addresses = [cells[column] for column in _ADDRESS if column in cells]
    if not names and not addresses:
        return "", None
    said = " ".join(text for text, _ in names)
    shown = [version] if version and version not in said else []
    texts = [text for text, _ in names] + shown + addresses
    read = [plain for _, plain in names]
    return " ".join(texts), _license((*read, *addresses), version, " ".join([*read, *shown, *addresses]))


def _name(text: str, column: str, source_url: str) -> tuple[str, str]:
    """The text of a cell, and what to read in its place: for a number of Flickr, the license."""
    number = _NUMBER.fullmatch(text)
    if number and (column in _FLICKR or (number[2] is None and _ON_FLICKR.match(source_url))):
        return f"Flickr license {number[1]}", FLICKR.get(number[1], "")
    return text, text


@lru_cache(4096)
def _license(cells: tuple[str, ...], version: str, text: str) -> str | None:
    ids = [_with_version(cell, version) for cell in cells]
    if None not in ids:
        return common_license(ids)
    if any(
        license_id(cell) for cell, one in zip(cells, ids, strict=True) if one is None
    ):  # of another version, or of none
        return None
    return license_id(text)  # one cell may limit what another names


def _with_version(cell: str, version: str) -> str | None:
    alone = license_id(cell)
    if alone is None or not version:
        return license_id(f"{cell} {version}")
    if unversioned := _UNVERSIONED.fullmatch(alone):
        return license_id(unversioned[1] + version)
    if (plain := _PLAIN_VERSION.fullmatch(version)) is None:  # such as words that limit the license
        return license_id(f"{cell} {version}")
    own = _OF_CC.fullmatch(alone)
    return alone if own is None or float(own[1]) == float(plain[1]) else None
