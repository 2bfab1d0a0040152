"""What is measured of one image, once: digests, size, format, faults, values and metadata inside the file."""

import hashlib
import io
import json
import os
import re
from dataclasses import asdict
from functools import cache, lru_cache
from typing import Any

import numpy as np
from PIL import Image

from wildfern.ssl.curation.embedded_metadata import EmbeddedMetadata, embedded_metadata
from wildfern.ssl.curation.listing import Folder, Listed, opened
from wildfern.ssl.curation.manifest import stored_path
from wildfern.ssl.curation.values import values_of
from wildfern.ssl.data import pillow_image
from wildfern.ssl.data.base import DataError, ImageArray, UnreadableImage
from wildfern.ssl.data.file_names import is_image
from wildfern.ssl.data.image_file import Decoding

_NO_METADATA = EmbeddedMetadata()
# How image files start, for files whose names have no extension of an image.
_STARTS = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"P5\n", b"P6\n"),
    *(b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL ", b"\xff\x0a"),
)
# Of files that begin with "ftyp"; all others are videos.
_BRANDS = (*(b"avif", b"avis", b"mif1", b"msf1"), *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"))
_EXTENSION = re.compile(r"\.[a-z][a-z0-9]{1,4}")
_container = lru_cache(2)(opened)  # fewer than for reading at random: each may keep much in memory, in each process
Row = dict[str, Any]


def measure(content: bytes, decoding: Decoding | None = None) -> Row:
    """The columns `MEASURED` of the manifest for one encoded image; those that cannot be known are left out."""
    row: Row = {"sha256": hashlib.sha256(content).hexdigest()}
    try:
        row |= _from_header(content)
        # With a remark, as training does: pages of a TIFF are examined then, and may be an error.
        pixels = (decoding or Decoding()).decode(content, lambda kind, words: None)
    except UnreadableImage as error:
        return row | {"fault": error.fault, "fault_detail": error.reason}
    height, width = pixels.shape[:2]
    values = values_of(pixels)._asdict()
    return row | {"width": width, "height": height, "pixels_sha256": pixels_sha256(pixels)} | values


def pixels_sha256(pixels: ImageArray) -> str:
    """SHA-256 of the height, the width and the pixels of an image uint8[H, W, 3]."""
    digest = hashlib.sha256(b"%d %d " % pixels.shape[:2])
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def measure_listed(kind: str, name: str, items: list[Listed]) -> list[Row]:
    """Rows with the columns `PLACE` (but for `source`) and `MEASURED` of these images of a container, in order."""
    where = _container(kind, name)
    rows = []
    for item in items:
        row: Row = {
            "kind": kind,
            "container": stored_path(name),
            "path": stored_path(item.path),
            "place": item.place,
            "modified": item.modified,
        }
        try:
            if isinstance(where, Folder) and not is_image(item.path) and not _starts_like_an_image(where, item):
                raise UnreadableImage("no image, by its name and its first bytes", "not_an_image")
            content = where.read(item.path, item.place, item.bytes)
            if not where.is_as_listed(item):
                raise UnreadableImage("changed during the scan: scan again")
        except DataError as error:
            fault = error.fault if isinstance(error, UnreadableImage) else "unreadable"
            row |= {"bytes": max(0, item.bytes), "fault": fault, "fault_detail": stored_path(str(error))}
            rows.append(row)
            continue
        rows.append(row | {"bytes": len(content)} | measure(content))
    return rows


def _starts_like_an_image(folder: Folder, item: Listed) -> bool:
    start = folder.first_bytes(item.path)
    return start.startswith(_STARTS) or start[8:12] == b"WEBP" or (start[4:8] == b"ftyp" and start[8:12] in _BRANDS)


def _from_header(content: bytes) -> Row:
    """Format, mode, frames and metadata of a file that Pillow reads; nothing for others, such as deep TIFF files."""
    try:
        image = pillow_image.opened(io.BytesIO(content))
    except UnreadableImage:
        return {}
    with image:
        row: Row = {
            "format": "JPEG" if image.format == "MPO" else image.format,
            "mode": image.mode,
            "channels": len(image.getbands()),
            "frames": _frames(image),
        }
        found = embedded_metadata(image, content)
    row["has_gps"] = found.has_gps
    if found != _NO_METADATA:
        row["embedded"] = json.dumps(
            {name: value for name, value in asdict(found).items() if value and name != "has_gps"}
        )
    return row


def _frames(image: Image.Image) -> int:
    """Frames of an animation; damaged ones count as 1. The pages of a TIFF and the second image of an MPO are not frames."""
    if image.format not in ("GIF", "PNG", "WEBP", "AVIF"):
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # decoders raise any exception for damaged data
        return 1


@cache
def extensions_of(image_format: str) -> frozenset[str]:
    """The extensions that belong to a format of Pillow, in lower case."""
    Image.init()
    return frozenset(end for end, name in Image.registered_extensions().items() if name == image_format)


def has_wrong_extension(path: str, image_format: str | None) -> bool:
    """Whether a file is an image of another format than its name says; endings such as .jpg_large or .2021 say none."""
    end = os.path.splitext(path)[1].lower()
    if image_format is None or _EXTENSION.fullmatch(end) is None:
        return False
    kin = {"JPEG": ("JPEG", "MPO"), "BMP": ("BMP", "DIB"), "DIB": ("BMP", "DIB")}.get(image_format, (image_format,))
    known = frozenset[str]().union(*map(extensions_of, kin))
    return bool(known) and end not in known
