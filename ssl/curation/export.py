"""Kept images as a folder, tar shards or parquet files of their own, without what cameras write into files."""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import ExifTags, Image

from wildfern.bounded_json import parse_json
from wildfern.files import replacing
from wildfern.ssl.curation.attribution import write_attribution
from wildfern.ssl.curation.blur_boxes import blur_boxes
from wildfern.ssl.curation.manifest import KEEP, CurationError, Manifest, path_on_disk
from wildfern.ssl.curation.places import Place
from wildfern.ssl.curation.takedowns import read_takedowns
from wildfern.ssl.data.base import UnreadableImage
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.tracking.current_progress import current_progress

Format = Literal["folder", "webdataset", "parquet"]
_QUALITY = 95  # of a JPEG that must be encoded anew
_COPIED = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif"}  # formats that every reader knows
_PARQUET = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((name, pa.string()) for name in ("sha256", "license", "author", "source_url")),
    ]
)


@dataclass(frozen=True)
class Exported:
    """An image to be written: its name, its bytes, and its row in the manifest."""

    name: str
    content: bytes
    row: dict[str, Any]


def export_images(folder: str | Path, out: str | Path, format: str = "folder", shard_mb: int = 256) -> tuple[int, int]:
    """Write the kept images of a curated folder into `out`, with attribution.csv; returns the numbers of images and files.

    - folder: files named by the SHA-256 of their source, in 256 folders. webdataset: images-000000.tar …, each image with a .json
      of license, author and source. parquet: images-000000.parquet …, with the column `image` of the Hugging Face layout.

    JPEG files keep their pixels; of their metadata only the orientation stays. Other files with metadata, in rare formats, or
    with faces to blur are decoded and written anew, as PNG or, if they were lossy, as JPEG of quality 95. Raises CurationError
    for another format, for an image that has changed since the scan, and for a damaged manifest.
    """
    if format not in get_args(Format):
        raise CurationError(f"format must be one of {', '.join(get_args(Format))}, got {format!r}")
    manifest, out = Manifest(folder), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    write = {"folder": _as_files, "webdataset": _as_shards, "parquet": _as_parquet}[format]
    rows: list[dict[str, Any]] = []
    files = write(_remembered(_exported(manifest), rows), out, shard_mb * 10**6)
    write_attribution(out / "attribution.csv", iter(rows))
    return len(rows), files


def _remembered(images: Iterator[Exported], rows: list[dict[str, Any]]) -> Iterator[Exported]:
    for image in images:
        rows.append(image.row)
        yield image


def _exported(manifest: Manifest) -> Iterator[Exported]:
    taken = {one.sha256 for one in read_takedowns(manifest.folder)}
    people = manifest.info.policy.get("people", {})
    progress, done, total = current_progress(), 0, manifest.info.counts["keep"]
    seen = set[str]()
    columns = [
        *("sha256", "kind", "container", "path", "place", "bytes", "format", "decision", "embedded", "has_gps"),
        *("people_boxes", "license", "license_text", "author", "source_url", "date", "credit", "metadata"),
    ]
    for batch in manifest.batches(columns):
        for row in batch.to_pylist():
            if row["decision"] != KEEP or row["sha256"] in taken or row["sha256"] in seen:
                continue
            seen.add(row["sha256"])
            done += 1
            progress.count(done, total, "images", "copying")
            boxes = parse_json(row["people_boxes"]) if people.get("blur") and row["people_boxes"] else []
            yield _one(row, [box for box in boxes if box[4] >= people.get("review", 0.0)])


def _one(row: dict[str, Any], boxes: list[list[float]]) -> Exported:
    place = Place(
        row["sha256"],
        row["kind"],
        path_on_disk(row["container"]),
        path_on_disk(row["path"]),
        row["place"],
        row["bytes"],
    )
    try:
        content = place.read_checked()
        if row["format"] == "JPEG" and not boxes:
            content, end = without_metadata(content), ".jpg"
        elif boxes or row["embedded"] or row["has_gps"] or row["format"] not in _COPIED:
            content, end = _encoded(content, row["format"], boxes)
        else:
            end = _COPIED[row["format"]]
    except UnreadableImage as error:
        raise CurationError(f"{place.path} cannot be exported: {error}; run wildfern curate scan again") from error
    return Exported(f"{row['sha256']}{end}", content, row)


def _encoded(content: bytes, format: str | None, boxes: list[list[float]]) -> tuple[bytes, str]:
    pixels = Decoding().decode(content)
    image = Image.fromarray(blur_boxes(pixels, boxes) if boxes else pixels)
    written = io.BytesIO()
    if format in ("JPEG", "WEBP", "AVIF", "HEIF"):
        image.save(written, "JPEG", quality=_QUALITY, subsampling=0)
        return written.getvalue(), ".jpg"
    image.save(written, "PNG")
    return written.getvalue(), ".png"


def without_metadata(content: bytes) -> bytes:
    """A JPEG without its segments of metadata (APP1 EXIF and XMP, APP11 to APP13, comments); the orientation is kept.

    Color profiles (APP2) and what decoders need (APP0, APP14) stay, and so do the compressed pixels, byte by byte. Raises
    UnreadableImage for what is no JPEG.
    """
    with Image.open(io.BytesIO(content), formats=("JPEG", "MPO")) as image:
        try:
            turned = int(image.getexif().get(ExifTags.Base.Orientation, 1))
        except Exception:  # EXIF that cannot be parsed is not applied by decoders either
            turned = 1
    kept = [content[:2]]
    if 2 <= turned <= 8:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = turned
        block = exif.tobytes()
        kept.append(b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block)
    at = 2
    while True:
        while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] == b"\xff":  # fill bytes
            at += 1
        marker, length = content[at : at + 2], int.from_bytes(content[at + 2 : at + 4], "big")
        if len(marker) < 2 or marker[:1] != b"\xff" or length < 2:
            raise UnreadableImage("damaged: a segment of the JPEG has no marker")
        if marker == b"\xff\xda":  # the pixels
            break
        if marker[1] not in (0xE1, 0xEB, 0xEC, 0xED, 0xFE):
            kept.append(content[at : at + 2 + length])
        at += 2 + length
    end = content.rfind(b"\xff\xd9")  # what follows the image, such as a second one, is left out
    return b"".join(kept) + content[at : end + 2 if end > at else None]


def _as_files(images: Iterator[Exported], out: Path, most: int) -> int:
    count = 0
    for image in images:
        folder = out / image.name[:2]
        folder.mkdir(exist_ok=True)
        path = folder / image.name
        if not path.exists():
            with replacing(path, sync=False) as beside:
                beside.write_bytes(image.content)
        count += 1
    return count


def _as_shards(images: Iterator[Exported], out: Path, most: int) -> int:
    number = 0
    for some in _parts(images, most):
        with replacing(out / f"images-{number:06d}.tar") as beside, tarfile.open(beside, "w") as shard:
            for image in some:
                stem, end = os.path.splitext(image.name)
                about = {name: image.row[name] for name in ("license", "author", "source_url")}
                for name, content in ((stem + end, image.content), (f"{stem}.json", json.dumps(about).encode())):
                    member = tarfile.TarInfo(name)
                    member.size, member.mode = len(content), 0o644
                    shard.addfile(member, io.BytesIO(content))
        number += 1
    return number


def _as_parquet(images: Iterator[Exported], out: Path, most: int) -> int:
    number = 0
    for some in _parts(images, most):
        rows = [
            {
                "image": {"bytes": image.content, "path": image.name},
                **{name: image.row[name] for name in _PARQUET.names if name != "image"},
            }
            for image in some
        ]
        with replacing(out / f"images-{number:06d}.parquet") as beside:
            pq.write_table(pa.Table.from_pylist(rows, _PARQUET), beside, row_group_size=256)
        number += 1
    return number


def _parts(images: Iterator[Exported], most: int) -> Iterator[list[Exported]]:
    """Images of about `most` bytes at a time."""
    part: list[Exported] = []
    size = 0
    for image in images:
        part.append(image)
        size += len(image.content)
        if size >= most:
            yield part
            part, size = [], 0
    if part:
        yield part
