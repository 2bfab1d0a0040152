"""Kept images as a folder, tar shards or parquet files of their own, without what cameras write into files."""

import io
import json
import os
import re
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import ExifTags, Image, ImageOps

from wildfern.files import remove_partial_files, replacing, write_text
from wildfern.printable import printable
from wildfern.ssl.curation.attribution import write_attribution
from wildfern.ssl.curation.blur_boxes import Blurring, blur_boxes
from wildfern.ssl.curation.manifest import KEEP, CurationError, Manifest, path_on_disk
from wildfern.ssl.curation.places import Place
from wildfern.ssl.curation.takedowns import read_takedowns
from wildfern.ssl.data import pillow_image
from wildfern.ssl.data.base import DataError, UnreadableImage
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.tracking.current_progress import current_progress

Format = Literal["folder", "webdataset", "parquet"]
_QUALITY = 95  # of a JPEG that must be encoded anew
_ATTRIBUTION = "attribution.csv"
_MARK = ".wildfern_export"  # of a folder that an export made, and may change
_ATTRIBUTED = [
    *("path", "sha256", "author", "license", "license_text", "rights", "source_url", "date", "credit", "metadata")
]
_WRITTEN = [
    *("kind", "container", "path", "place", "bytes", "format", "people_boxes", "license", "author", "source_url")
]
_ABOUT = ("license", "author", "source_url")
_PARQUET = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((name, pa.string()) for name in ("sha256", *_ABOUT)),
    ]
)
# Files that are copied as they are: those with no other chunks than these, of pixels and color. An animation has others.
_COPIED = {"PNG": ".png", "WEBP": ".webp"}
_CHUNKS = {
    "PNG": {
        *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"pHYs"),
        *(b"cICP", b"mDCV", b"cLLI"),
    },
    "WEBP": {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP"},
}
# Of JPEG (ITU-T T.81, table B.1).
_SCAN, _END, _EXIF = 0xDA, 0xD9, 0xE1
_TABLES = {*range(0xC0, 0xD0), _SCAN, 0xDB, 0xDC, 0xDD}  # frames, scans, tables, lines and restart intervals
_ALONE = {0x01, *range(0xD0, 0xD9)}  # without a length
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_SCAN_ENDS = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # other bytes after 0xff belong to the compressed pixels


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

    JPEG files keep their pixels; of their metadata only the orientation stays. Other files with metadata, in rare formats,
    animated, or with faces to blur are decoded and written anew, as PNG or, if they were lossy, as JPEG of quality 95. An export
    that was killed is completed by the same again. What an earlier export in this format left in `out` and is not kept any more,
    such as an image that was taken down, is removed.

    Raises CurationError for another format, for an `out` that has other files, or is or contains or lies in a source, for an
    image that has changed since the scan, and for a damaged manifest.
    """
    if format not in get_args(Format):
        raise CurationError(f"format must be one of {', '.join(get_args(Format))}, got {format!r}")
    manifest, out = Manifest(folder), Path(out)
    _check_out(manifest, out)
    out.mkdir(parents=True, exist_ok=True)
    remove_partial_files(out)
    write_text(
        out / _MARK, "Written by wildfern curate export: files here are replaced and removed by the next export.\n"
    )
    changes = "metadata removed; other formats than JPEG may be encoded anew"
    if manifest.info.policy.get("people", {}).get("blur"):
        changes += "; faces or persons blurred"
    write = {"folder": _as_files, "webdataset": _as_shards, "parquet": _as_parquet}[format]
    # First: what an export that is killed leaves in a folder has its attribution.
    count = write_attribution(out / _ATTRIBUTION, _kept(manifest, _ATTRIBUTED), changes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of each damaged block of metadata, which is left out
        return count, write(_exported(manifest, count), out, shard_mb * 10**6)


def _check_out(manifest: Manifest, out: Path) -> None:
    """Raise CurationError for a folder in which an export could replace or remove what it did not write."""
    if out.exists() and not out.is_dir():
        raise CurationError(f"{out} is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise CurationError(f"{out} has files that no export wrote; name a new or empty folder")
    there = out.resolve()
    for name in manifest.table(["container"]).column("container").unique().to_pylist():
        source = Path(path_on_disk(name)).resolve()
        source = source if source.is_dir() else source.parent
        if there in (source, *source.parents) or source in there.parents:
            raise CurationError(
                f"{out} is, or lies in or around, {source}, where the images come from; name another folder"
            )


def _kept(manifest: Manifest, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of the images to be written: kept, not taken down since, each content once."""
    taken = {
        digest
        for one in read_takedowns(manifest.folder)
        for digest in (one.sha256, one.pixels_sha256)
        if digest is not None
    }
    seen = set[bytes]()
    for batch in manifest.batches(list(dict.fromkeys([*columns, "sha256", "pixels_sha256", "decision"]))):
        for row in batch.to_pylist():
            if row["decision"] != KEEP or row["pixels_sha256"] is None or taken & {row["sha256"], row["pixels_sha256"]}:
                continue
            digest = bytes.fromhex(row["sha256"])
            if digest not in seen:
                seen.add(digest)
                yield row


def _exported(manifest: Manifest, total: int) -> Iterator[Exported]:
    blurring = Blurring.of_policy(manifest.info.policy)
    progress = current_progress()
    for done, row in enumerate(_kept(manifest, _WRITTEN), 1):
        progress.count(done, total, "images", "copying")
        yield _one(row, blurring.boxes(row["people_boxes"]))


def _one(row: dict[str, Any], boxes: list[list[float]]) -> Exported:
    place = Place.of_row(row)
    try:
        content = place.read_checked()
        if row["format"] == "JPEG" and not boxes:
            content, end = without_metadata(content), ".jpg"
        elif row["format"] in _COPIED and not boxes and _is_bare(content, row["format"]):
            end = _COPIED[row["format"]]
        else:
            content, end = _encoded(content, row["format"], boxes)
    except DataError as error:
        where = printable(f"{place.container}/{place.path}")
        raise CurationError(f"{where} cannot be exported: {error}; run wildfern curate scan again") from error
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


def _is_bare(content: bytes, format: str) -> bool:
    """Whether a PNG or WebP file has only chunks of `_CHUNKS`, and ends with the last one."""
    at, kinds = 8 if format == "PNG" else 12, set[bytes]()
    while at + 8 <= len(content):
        first, second = content[at : at + 4], content[at + 4 : at + 8]
        if format == "PNG":
            kind, length = second, int.from_bytes(first, "big") + 4  # of the checksum
        else:
            kind, length = first, (int.from_bytes(second, "little") + 1) // 2 * 2
        kinds.add(kind)
        at += 8 + length
        if kind == b"IEND":
            break
    return kinds <= _CHUNKS[format] and at == len(content)


def without_metadata(content: bytes) -> bytes:
    """A JPEG without metadata (EXIF, XMP, IPTC, thumbnails, comments, whatever other segments hold) but for the orientation.

    Color profiles and what decoders need (APP0 of JFIF, APP14 of Adobe) stay, and so do the compressed pixels, byte by byte. What
    follows the image, such as a second one or a film, is left out. Raises UnreadableImage for what is no JPEG.
    """
    turned = _orientation(content)
    kept, scanned = [content[:2]], False
    for marker, segment in _segments(content):
        needed = segment if marker in _TABLES else b"" if scanned else _needed(marker, segment)
        if needed:
            kept.append(bytes([0xFF, marker]) + needed)
        scanned |= marker == _SCAN
    if not scanned:
        raise UnreadableImage("damaged: a JPEG without pixels")
    if turned != 1:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = turned
        block = exif.tobytes()
        first = 2 if kept[1].startswith(b"\xff\xe0") else 1  # JFIF comes first
        kept.insert(first, bytes([0xFF, _EXIF]) + (len(block) + 2).to_bytes(2, "big") + block)
    return b"".join([*kept, bytes([0xFF, _END])])


def _orientation(content: bytes) -> int:
    """2 to 8 where decoders turn a JPEG by its EXIF or XMP, else 1."""
    with pillow_image.opened(io.BytesIO(content)) as image:
        if image.format not in ("JPEG", "MPO"):
            raise UnreadableImage(f"{image.format}, not a JPEG")
        pixel = Image.new("L", (1, 1))
        pixel.info = dict(image.info)
    try:
        turned = pixel.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(pixel)  # fails for EXIF that is partly damaged, and such an image is not turned
        return int(turned) if turned in range(2, 9) else 1
    except Exception:  # Pillow raises almost anything for damaged EXIF
        return 1


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The segments of a JPEG up to its end: marker, and what follows it with its length; scans with their compressed pixels.

    Bytes between segments are passed over, as decoders do.
    """
    at = 2
    while (found := _MARKER.search(content, at)) is not None:
        marker, at = content[found.start() + 1], found.end()
        if marker == _END:
            return
        if marker in _ALONE:
            continue
        end = at + max(2, int.from_bytes(content[at : at + 2], "big"))
        if marker == _SCAN:
            behind = _SCAN_ENDS.search(content, end)
            end = len(content) if behind is None else behind.start()
        yield marker, content[at:end]
        at = end


def _needed(marker: int, segment: bytes) -> bytes:
    """What decoders need of an application segment, with its length: none but those of JFIF, Adobe and color profiles."""
    if marker == 0xE0 and segment[2:7] == b"JFIF\0" and len(segment) >= 16:
        return b"\0\x10" + segment[2:14] + b"\0\0"  # without the thumbnail
    if marker == 0xE2 and segment[2:14] == b"ICC_PROFILE\0":
        return segment
    if marker == 0xEE and segment[2:7] == b"Adobe" and len(segment) >= 14:
        return b"\0\x0e" + segment[2:14]
    return b""


def _as_files(images: Iterator[Exported], out: Path, most: int) -> int:
    names = set[str]()
    for image in images:
        folder = out / image.name[:2]
        folder.mkdir(exist_ok=True)
        path = folder / image.name
        if not path.exists() or path.read_bytes() != image.content:
            with replacing(path, sync=False) as beside:
                beside.write_bytes(image.content)
        names.add(image.name)
    for folder in out.glob("[0-9a-f][0-9a-f]"):
        remove_partial_files(folder)
        _remove(folder, "[0-9a-f]{64}\\.(jpg|png|webp)", names)
    return len(names)


def _as_shards(images: Iterator[Exported], out: Path, most: int) -> int:
    names = set[str]()
    for some in _parts(images, most):
        name = f"images-{len(names):06d}.tar"
        with replacing(out / name) as beside, tarfile.open(beside, "w") as shard:
            for image in some:
                about = {key: image.row[key] for key in _ABOUT}
                stem, _ = os.path.splitext(image.name)
                for member, content in ((image.name, image.content), (f"{stem}.json", json.dumps(about).encode())):
                    header = tarfile.TarInfo(member)
                    header.size, header.mode = len(content), 0o644
                    shard.addfile(header, io.BytesIO(content))
        names.add(name)
    _remove(out, r"images-\d{6,}\.tar", names)
    return len(names)


def _as_parquet(images: Iterator[Exported], out: Path, most: int) -> int:
    names = set[str]()
    for some in _parts(images, most):
        rows = [
            {
                "image": {"bytes": image.content, "path": image.name},
                **{name: image.row[name] for name in _PARQUET.names if name != "image"},
            }
            for image in some
        ]
        name = f"images-{len(names):06d}.parquet"
        with replacing(out / name) as beside, beside.open("wb") as file:  # pyarrow opens names in UTF-8 only
            pq.write_table(pa.Table.from_pylist(rows, _PARQUET), file, row_group_size=256)
        names.add(name)
    _remove(out, r"images-\d{6,}\.parquet", names)
    return len(names)


def _remove(folder: Path, pattern: str, but: set[str]) -> None:
    """Remove what earlier exports wrote into this folder."""
    for path in folder.iterdir():
        if re.fullmatch(pattern, path.name) and path.name not in but:
            path.unlink()


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
