"""The manifest of a curated folder: one Parquet file, a row an image, with what was measured and what was decided."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from wildfern.bounded_json import parse_json
from wildfern.ssl.curation.row_check import check_rows
from wildfern.ssl.data.base import DataError

MANIFEST, VERSIONS = "manifest.parquet", "manifests"
FORMAT = 1
ROWS = 4096  # of a row group
SMALL = 16  # pixels: side of the column `small`
KEEP: Final = "keep"
REVIEW: Final = "review"
REJECT: Final = "reject"

_REASON = pa.struct([("rule", pa.string()), ("action", pa.string()), ("value", pa.float64()), ("detail", pa.string())])
_NAME = pa.dictionary(pa.int32(), pa.string())
# What is known before an image is opened.
PLACE = [
    pa.field("source", _NAME),  # as given: folder:photos
    pa.field("kind", _NAME),  # folder, parquet, webdataset
    pa.field("container", _NAME),  # full path of the folder, parquet file or tar shard
    pa.field("path", pa.string()),  # in the container: relative path, name of the member, or "row 17"
    pa.field("place", pa.int64()),  # byte in a shard, row of a parquet file, -1 for a file
    pa.field("bytes", pa.int64()),
    pa.field("modified", pa.int64()),  # ns since 1970, of the file or of its container
]
# What is measured once.
MEASURED = [
    pa.field("sha256", pa.string()),  # of the encoded bytes
    pa.field("pixels_sha256", pa.string()),  # of height, width and the decoded RGB pixels, upright; null: unreadable
    pa.field("width", pa.int32()),  # upright
    pa.field("height", pa.int32()),
    pa.field("format", _NAME),  # JPEG, PNG …
    pa.field("mode", _NAME),  # RGB, CMYK, L, P …, as stored
    pa.field("channels", pa.int8()),
    pa.field("frames", pa.int32()),
    pa.field("fault", _NAME),  # a rule of `Policy` that needs no threshold, or null
    pa.field("fault_detail", pa.string()),
    pa.field("brightness", pa.float32()),  # mean luma, 0 to 255
    pa.field("contrast", pa.float32()),  # standard deviation of luma, in 0 to 127.5
    pa.field("dark_percentile", pa.float32()),  # luma that 99 % of the pixels are below
    pa.field("light_percentile", pa.float32()),  # luma that 95 % of the pixels are above
    pa.field("sharpness", pa.float32()),
    pa.field("page", pa.float32()),  # 0 to 1: looks like a page of text
    pa.field("screenshot", pa.float32()),  # 0 to 1
    pa.field("phash", pa.uint64()),  # 64 bits of the perceptual hash
    pa.field("phash_quality", pa.float32()),
    pa.field("small", pa.binary(3 * SMALL * SMALL)),  # uint8[16, 16, 3]: the image, for comparisons
    pa.field("embedded", pa.string()),  # author, rights, date … in the file itself, as JSON; null: none
    pa.field("has_gps", pa.bool_()),  # coordinates are never copied
]
# What the file and the user's metadata say together: the user's metadata comes first.
JOINED = [
    pa.field("author", pa.string()),
    pa.field("credit", pa.string()),
    pa.field("rights", pa.string()),  # copyright notice or usage terms, as found
    pa.field("license", pa.string()),  # SPDX id; null: unknown
    pa.field("license_text", pa.string()),  # as found
    pa.field("license_from", _NAME),  # metadata, xmp, exif, iptc
    pa.field("source_url", pa.string()),
    pa.field("date", pa.string()),  # ISO 8601, as precise as found
    pa.field("camera", pa.string()),
    pa.field("optout", pa.string()),  # a reservation against training that was found, in words; null: none
    pa.field("album", pa.string()),  # of the user's metadata, else the folder of the image
    pa.field("metadata", pa.string()),  # other columns of the user's metadata, as JSON
]
# What depends on other images, or on the policy.
DECIDED = [
    pa.field("people", pa.float32()),  # highest score of the detector; null: not checked
    pa.field("people_boxes", pa.string()),  # JSON: [[left, top, right, bottom, score], …] in pixels
    pa.field("people_checked", pa.string()),  # which detector, with which weights, found that
    pa.field("group", pa.int32()),  # of duplicates; -1: none
    pa.field("cluster", pa.int32()),  # of features; -1: none
    pa.field("decision", _NAME),
    pa.field("reasons", pa.list_(_REASON)),
]
STORED = pa.schema([*PLACE, *MEASURED])  # kept from one scan to the next
SCHEMA = pa.schema([*STORED, *JOINED, *DECIDED])


# The bytes 128 to 255 of a name that are no UTF-8, as Python has them, and as the manifest has them.
_BYTES = {0xDC80 + n: chr(0x10FF80 + n) for n in range(128)}
# A name may have such a character itself: as its four bytes, so that no two names become one.
_OWN = {ord(one): "".join(_BYTES[0xDC00 + byte] for byte in one.encode()) for one in _BYTES.values()}
_STORED = _BYTES | _OWN
_ON_DISK = {ord(private): surrogate for surrogate, private in _BYTES.items()}


def stored_path(name: str) -> str:
    """A file name as Unicode: bytes that are no UTF-8 become characters for private use, and `path_on_disk` brings them back."""
    return name if name.isascii() else name.translate(_STORED)


def path_on_disk(path: str) -> str:
    """The file name of a `stored_path`, as Python has it: `os.fsencode` gives its bytes."""
    return path if path.isascii() else path.translate(_ON_DISK)


class CurationError(DataError):
    """A curated folder, a policy or a request that cannot be used; the message is for the user."""


@dataclass(frozen=True)
class Info:
    """What the manifest says of itself, as JSON in its schema.

    - sources, metadata: as given, in order. policy: as resolved. counts: of images by decision.
    - checked: what was examined besides the files, such as the people detector; not_checked: what was not.
    - scan_notes: what the user should know about the scan; notes: these, and others about the decisions.
    """

    sources: list[str]
    policy: dict[str, Any]
    counts: dict[str, int]
    metadata: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    scan_notes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wildfern: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **self.__dict__}


class Manifest:
    """The manifest in the folder `folder`, read column by column. Raises CurationError if there is none or it is damaged.

    - version: a former one, by the first 8 digits or more of its SHA-256; None: the present one.
    """

    def __init__(self, folder: str | Path, version: str | None = None) -> None:
        self.folder = Path(folder)
        self.path = self.folder / MANIFEST if version is None else _version(self.folder, version)
        self._file = _opened(self.path)
        self.info = _info(self._file, self.path)

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return _sha256(self.path)

    def table(self, columns: Sequence[str]) -> pa.Table:
        """These columns of all images. Raises CurationError for values that no scan writes."""
        batches = list(self.batches(columns))
        if not batches:
            return SCHEMA.empty_table().select(list(columns))
        return pa.Table.from_batches(batches).select(list(columns)).unify_dictionaries()

    def batches(self, columns: Sequence[str] | None = None, rows: int = ROWS) -> Iterator[pa.RecordBatch]:
        """All images, some thousand at a time. Raises CurationError for values that no scan writes."""
        remaining = self._file.iter_batches(rows, columns=None if columns is None else list(columns))
        start = 0
        while (batch := _reading(self.path, lambda: next(remaining, None))) is not None:
            try:
                check_rows(batch, start)
            except ValueError as error:
                raise CurationError(f"{self.path} is damaged: {error}") from error
            yield batch
            start += batch.num_rows

    def check(self) -> None:
        """Read everything, for others that read the file themselves. Raises CurationError for values that no scan writes."""
        for _ in self.batches([name for name in SCHEMA.names if name != "small"]):
            pass

    def close(self) -> None:
        self._file.close()


def version_path(folder: Path, sha256: str) -> Path:
    """Where a version of the manifest is kept, for runs that were trained on it."""
    return folder / VERSIONS / f"{sha256[:16]}.parquet"


def versions(folder: Path) -> list[str]:
    """The manifests that are kept, by the first digits of their SHA-256."""
    return sorted(path.stem for path in (folder / VERSIONS).glob("*.parquet"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(folder: Path, version: str) -> Path:
    if len(version) < 8 or set(version) - set("0123456789abcdef"):
        raise CurationError(f"manifest must be 8 digits or more of the SHA-256 of one, got {version!r}")
    kept = sorted((folder / VERSIONS).glob(f"{version[:16]}*.parquet"))
    if not kept and (folder / MANIFEST).is_file() and _sha256(folder / MANIFEST).startswith(version):
        return folder / MANIFEST  # of a folder that was copied without its former manifests
    if not kept:
        raise CurationError(f"{folder} does not keep the manifest {version}: restore {folder / VERSIONS}")
    if len(kept) > 1:
        raise CurationError(
            f"{len(kept)} manifests in {folder / VERSIONS} begin with {version}: write more of its digits"
        )
    return kept[0]


def _opened(path: Path) -> pq.ParquetFile:
    if not path.parent.is_dir():
        raise CurationError(
            f"there is no folder {path.parent}; wildfern curate scan SOURCE --out {path.parent} makes one"
        )
    if not path.is_file():
        raise CurationError(
            f"{path.parent} has no {MANIFEST}: it is no curated folder, or its scan was not finished; wildfern curate scan "
            f"SOURCE --out {path.parent} makes or finishes it"
        )
    file = _reading(path, lambda: pq.ParquetFile(path))
    found = file.schema_arrow
    for column in SCHEMA:
        if (count := found.names.count(column.name)) != 1:
            what = f"{count} columns" if count else "no column"
            raise CurationError(f"{path} is no manifest of wildfern: it has {what} {column.name}")
        if (kind := found.field(column.name).type) != column.type:
            raise CurationError(
                f"{path} is no manifest of wildfern: {column.name} is {kind}, and should be {column.type}"
            )
    return file


def _info(file: pq.ParquetFile, path: Path) -> Info:
    try:
        found = dict(parse_json((file.schema_arrow.metadata or {})[b"wildfern"]))
        if found.pop("format") > FORMAT:
            raise CurationError(f"{path} was written by a later version of wildfern; update this one")
        info = Info(**found)
        for name, value in info.__dict__.items():
            kind = {"policy": dict, "counts": dict, "wildfern": str}.get(name, list)
            if not isinstance(value, kind):
                raise TypeError(f"{name} is no {kind.__name__}")
            if kind is list and not all(isinstance(one, str) for one in value):
                raise TypeError(f"{name} must be texts")
        if not all(isinstance(count, int) for count in info.counts.values()):
            raise TypeError("counts must be whole numbers")
        return info
    except CurationError:
        raise
    except (KeyError, ValueError, TypeError) as error:
        raise CurationError(f"{path} is damaged, or no manifest of wildfern: {error}") from error


def _reading(path: Path, read: Any) -> Any:
    try:
        return read()
    except (pa.ArrowException, ValueError, OSError) as error:  # ValueError: damaged names of columns
        raise CurationError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
