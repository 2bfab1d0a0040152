"""Kept images as a folder, tar shards or parquet files of their own, without what cameras write into files."""

import csv
import io
import json
import os
import re
import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from wildfern.files import is_regular, open_reading, replacing
from wildfern.printable import printable
from wildfern.ssl.curation.attribution import write_attribution
from wildfern.ssl.curation.bare_image import bare_image
from wildfern.ssl.curation.blur_boxes import Blurring
from wildfern.ssl.curation.export_folder import ExportFolder
from wildfern.ssl.curation.manifest import KEEP, CurationError, Manifest, path_on_disk
from wildfern.ssl.curation.places import Place
from wildfern.ssl.curation.takedowns import read_takedowns
from wildfern.ssl.data.base import DataError
from wildfern.ssl.tracking.current_progress import current_progress

Format = Literal["folder", "webdataset", "parquet"]
_ATTRIBUTION = "attribution.csv"
_CHANGES = "metadata removed; other formats than JPEG may be encoded anew"
_BLURRED = "; faces or persons blurred"
_ATTRIBUTED = [
    *("path", "sha256", "author", "license", "license_text", "rights", "source_url", "date", "credit", "metadata"),
    "people_boxes",
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


@dataclass(frozen=True)
class Exported:
    """An image to be written: its name, its bytes, and its row in the manifest."""

    name: str
    content: bytes
    row: dict[str, Any]


def export_images(
    folder: str | Path,
    out: str | Path,
    format: str = "folder",
    shard_mb: int = 256,
    lock: Callable[[Path], AbstractContextManager[Any]] = nullcontext,
) -> tuple[int, int]:
    """Write the kept images of a curated folder into `out`, with attribution.csv; returns the numbers of images and files.

    - folder: files named by the SHA-256 of their source, in 256 folders. webdataset: images-000000.tar …, each image with a .json
      of license, author and source. parquet: images-000000.parquet …, with the column `image` of the Hugging Face layout.
    - lock: keeps other processes out of `out`, which exists and was checked by then.

    JPEG files keep their pixels; of their metadata only the orientation stays. Other files with metadata, in rare formats,
    animated, or with faces to blur are decoded and written anew, as PNG or, if they were lossy, as JPEG of quality 95. An export
    that was killed is completed by the same again; until then attribution.csv has lines for all images that may be in `out`.
    What an earlier export, in whatever format, left there and is not kept any more, such as an image that was taken down, is
    removed at the end.

    Raises CurationError for another format, for an `out` that has other files, or is or contains or lies in a source, for an
    image that has changed since the scan, and for a damaged manifest.
    """
    if format not in get_args(Format):
        raise CurationError(f"format must be one of {', '.join(get_args(Format))}, got {format!r}")
    manifest, target = Manifest(folder), ExportFolder(out)
    _check_sources(manifest, target.path)
    target.path.mkdir(parents=True, exist_ok=True)
    with lock(target.path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of each damaged block of metadata, which is left out
        return _export(manifest, target, format, shard_mb * 10**6)


def _export(manifest: Manifest, out: ExportFolder, format: str, most: int) -> tuple[int, int]:
    images = {bytes.fromhex(row["sha256"]) for row in _kept(manifest, [])}
    out.begin(images if format == "folder" else ())
    # First: what an export that is killed leaves in a folder has its attribution.
    listed = _attribute(manifest, out.path, _earlier_lines(out.path, images) if out.was_used else ())
    write = {"folder": _as_files, "webdataset": _as_shards, "parquet": _as_parquet}[format]
    names, done = set[str](), 0
    try:
        for name, count in write(_exported(manifest, len(images)), out, most):
            names.add(name)
            done += count
    except CurationError as error:
        more = ", and those of earlier exports, which are still there" if listed > len(images) else ""
        raise CurationError(
            f"{error}. {out.path} is incomplete: {done:,} of {len(images):,} images are written; attribution.csv lists all "
            f"{len(images):,}{more}"
        ) from error
    out.finish(names)
    if listed != done:
        _attribute(manifest, out.path)
    return done, len(names)


def _check_sources(manifest: Manifest, out: Path) -> None:
    """Raise CurationError for a folder in which an export could replace or remove images of the sources."""
    there = out.resolve()
    table = manifest.table(["kind", "container"]).cast(pa.schema([("kind", pa.string()), ("container", pa.string())]))
    for row in table.group_by(["kind", "container"]).aggregate([]).to_pylist():
        source = Path(path_on_disk(row["container"])).resolve()
        source = source if row["kind"] == "folder" else source.parent
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


def _attribute(manifest: Manifest, out: Path, others: Iterable[dict[str, Any]] = ()) -> int:
    """Write attribution.csv with the images of this export, and with others; returns how many these are."""
    blurring = Blurring.of_policy(manifest.info.policy)
    rows = (
        row | {"changes": _CHANGES + _BLURRED * bool(blurring.boxes(row["people_boxes"]))}
        for row in _kept(manifest, _ATTRIBUTED)
    )
    return write_attribution(out / _ATTRIBUTION, chain(rows, others))


def _earlier_lines(out: Path, images: set[bytes]) -> Iterator[dict[str, Any]]:
    """What attribution.csv says of other images than these, as rows for `write_attribution`."""
    path = out / _ATTRIBUTION
    if not is_regular(path):
        return
    with open_reading(path) as file, suppress(csv.Error):  # of a file that was edited: the lines before are read
        for line in csv.DictReader(io.TextIOWrapper(file, "utf-8", "replace", newline="")):
            row = {name: value.removeprefix("'") or None for name, value in line.items() if isinstance(value, str)}
            digest = row.get("sha256") or ""
            if re.fullmatch("[0-9a-f]{64}", digest) and bytes.fromhex(digest) not in images:
                yield row | {"metadata": json.dumps({"title": row.get("title")})}


def _exported(manifest: Manifest, total: int) -> Iterator[Exported]:
    blurring = Blurring.of_policy(manifest.info.policy)
    progress = current_progress()
    for done, row in enumerate(_kept(manifest, _WRITTEN), 1):
        progress.count(done, total, "images", "copying")
        yield _one(row, blurring.boxes(row["people_boxes"]))


def _one(row: dict[str, Any], boxes: list[list[float]]) -> Exported:
    place = Place.of_row(row)
    try:
        content, end = bare_image(place.read_checked(), row["format"], boxes)
    except DataError as error:
        where = printable(f"{place.container}/{place.path}")
        raise CurationError(f"{where} cannot be exported: {error}; run wildfern curate scan again") from error
    return Exported(f"{row['sha256']}{end}", content, row)


def _as_files(images: Iterator[Exported], out: ExportFolder, most: int) -> Iterator[tuple[str, int]]:
    """Write the images; yields the name of each file that was written, and how many images it has."""
    for image in images:
        path = out.path_of_image(image.name, image.content)
        if path is not None:
            with replacing(path, sync=False) as beside:
                beside.write_bytes(image.content)
        yield image.name, 1


def _as_shards(images: Iterator[Exported], out: ExportFolder, most: int) -> Iterator[tuple[str, int]]:
    for number, some in enumerate(_parts(images, most)):
        name = f"images-{number:06d}.tar"
        with replacing(out.path_of_file(name)) as beside, tarfile.open(beside, "w") as shard:
            for image in some:
                about = {key: image.row[key] for key in _ABOUT}
                stem, _ = os.path.splitext(image.name)
                for member, content in ((image.name, image.content), (f"{stem}.json", json.dumps(about).encode())):
                    header = tarfile.TarInfo(member)
                    header.size, header.mode = len(content), 0o644
                    shard.addfile(header, io.BytesIO(content))
        yield name, len(some)


def _as_parquet(images: Iterator[Exported], out: ExportFolder, most: int) -> Iterator[tuple[str, int]]:
    for number, some in enumerate(_parts(images, most)):
        rows = [
            {
                "image": {"bytes": image.content, "path": image.name},
                **{name: image.row[name] for name in _PARQUET.names if name != "image"},
            }
            for image in some
        ]
        name = f"images-{number:06d}.parquet"
        # Opened here, as pyarrow opens names in UTF-8 only.
        with replacing(out.path_of_file(name)) as beside, beside.open("wb") as file:
            pq.write_table(pa.Table.from_pylist(rows, _PARQUET), file, row_group_size=256)
        yield name, len(some)


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
