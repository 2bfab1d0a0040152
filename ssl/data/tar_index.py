"""Offsets of the images and labels in plain tar files, for random access without unpacking."""

import math
import os
import re
from array import array
from dataclasses import dataclass, field
from typing import Any

from wildfern.bounded_json import parse_json
from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.file_names import PassedOver, is_image, is_litter
from wildfern.ssl.data.path_store import PathStore
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.tar_headers import Member, TarFault, members
from wildfern.ssl.data.worker_threads import check_wanted

PREFERRED = (".jpg", ".jpeg", ".png", ".webp")  # of several images of one sample, the first of these is read
MOST_LABEL_BYTES = 2**20  # of a .cls or .json
MOST_NAME = 1000  # characters of the name of a class
MOST_CLASSES = 10_000  # of one image
_COMPRESSED = re.compile(rb"\x1f\x8b|BZh\d1AY&SY|\xfd7zXZ|\x28\xb5\x2f\xfd", re.DOTALL)  # gzip, bzip2, xz, zstd
_NO_LABEL = (0, 0)


@dataclass
class ShardIndex:
    """The samples of one shard in order: key, offset and size of the image, offset and size of the label (size 0: none)."""

    file: SteadyFile
    keys: PathStore = field(default_factory=PathStore)
    offsets: array = field(default_factory=lambda: array("q"))
    sizes: array = field(default_factory=lambda: array("q"))
    label_offsets: array = field(default_factory=lambda: array("q"))
    label_sizes: array = field(default_factory=lambda: array("q"))
    in_json: bytearray = field(default_factory=bytearray)  # whether the label is "label" of a .json
    members: int = 0  # files, without those of operating systems
    passed_over: PassedOver = field(default_factory=PassedOver)
    lone_labels: int = 0  # .cls and .json with no image beside them
    fault: str | None = None  # why the shard could not be read to the end


@dataclass
class _Sample:
    key: str
    image: tuple[str, int, int] | None = None
    is_preferred: bool = False
    label: tuple[int, int] = _NO_LABEL
    in_json: bool = False


@dataclass(frozen=True)
class UnusableLabel:
    """A label that is there and cannot be used."""

    reason: str


def index_shard(path: str) -> ShardIndex:
    """Read the headers of one shard. Consecutive members with the same name up to the first dot of the base name are a sample.

    The image is the first member ending in jpg, jpeg, png or webp, else the first with another image extension; the label is the
    content of .cls, else "label" in .json. A damaged shard keeps the samples before the damage; `fault` describes it.
    """
    index = ShardIndex(SteadyFile.of(path))
    with index.file.open() as file:
        if _COMPRESSED.match(file.read(10)):
            raise DataError(
                f"{path} is compressed; random access needs plain tar: gunzip it (images do not get smaller by it)"
            )
        sample, fault = _Sample(""), None
        try:
            for number, member in enumerate(members(file, index.file.size)):
                if not number % 256:
                    check_wanted()
                if is_litter(member.name):
                    continue
                if member.sparse:
                    index.members += 1
                    index.passed_over.add(member.name, "sparse")
                    continue
                folder, base = os.path.split(member.name)
                stem, _, extension = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if key != sample.key:
                    _add(index, sample)
                    sample = _Sample(key)
                _take(index, sample, member, extension)
        except TarFault as error:
            fault = str(error)
        _add(index, sample)
    if fault is not None:
        index.fault = f"truncated or damaged after {len(index.keys)} images: {fault}"
    return index


def read_labels(shard: SteadyFile, labels: list[tuple[int, int, bool]]) -> list[Any]:
    """The labels of a shard at these (offset, size, in_json), as written; None for size 0; UnusableLabel."""
    with shard.open() as file:
        found: list[Any] = []
        for number, (offset, size, in_json) in enumerate(labels):
            if not number % 256:
                check_wanted()
            if size > MOST_LABEL_BYTES:
                found.append(UnusableLabel(f"{size:,} bytes; at most {MOST_LABEL_BYTES:,} are read for a label"))
            elif size:
                file.seek(offset)
                found.append(_label(file.read(size), in_json))
            else:
                found.append(None)
        return found


def _take(index: ShardIndex, sample: _Sample, member: Member, extension: str) -> None:
    index.members += 1
    ending = extension.lower()
    preferred = ending.endswith(tuple(e[1:] for e in PREFERRED))
    place = (member.offset, member.size)
    if is_image(member.name) and (sample.image is None or (preferred and not sample.is_preferred)):
        if sample.image is not None:
            index.passed_over.add(sample.image[0])
        sample.image, sample.is_preferred = (member.name, *place), preferred
    elif ending == "cls" or (ending == "json" and sample.label == _NO_LABEL):
        sample.label, sample.in_json = place, ending == "json"
    elif ending not in ("cls", "json"):
        index.passed_over.add(member.name, f".{ending}" if ending else "")


def _add(index: ShardIndex, sample: _Sample) -> None:
    if sample.image is not None:
        name, offset, size = sample.image
        index.keys.append(name)
        index.offsets.append(offset)
        index.sizes.append(size)
        index.label_offsets.append(sample.label[0])
        index.label_sizes.append(sample.label[1])
        index.in_json.append(sample.in_json)
    elif sample.label != _NO_LABEL:
        index.lone_labels += 1


def _label(content: bytes, in_json: bool) -> Any:
    try:
        text = content.decode().strip()
        parsed = parse_json(text) if in_json or text.startswith("[") else None
    except ValueError as error:
        if in_json or not content.isascii() or len(content) > MOST_NAME:
            return UnusableLabel(str(error).splitlines()[0])
        parsed = None  # a name such as [cat]
    if in_json:
        value = parsed.get("label") if isinstance(parsed, dict) else None
    else:  # a list for an image of several classes, such as [0, 2]
        value = parsed if isinstance(parsed, list) else text
    if isinstance(value, str):
        if len(value) > MOST_NAME:
            return UnusableLabel(f"a name of {len(value):,} characters; at most {MOST_NAME:,} are possible")
        return int(value) if re.fullmatch(r"-?\d{1,18}", value) else value or None
    if isinstance(value, list) and len(value) > MOST_CLASSES:
        return UnusableLabel(f"a list of {len(value):,} classes; at most {MOST_CLASSES:,} are possible")
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict | list) or (isinstance(one, float) and math.isinf(one)):
            return UnusableLabel(f"has {_short(one)}; labels are whole numbers, names, or lists of these")
    return value


def _short(value: Any) -> str:
    return str(value) if isinstance(value, float) else "a list of lists" if isinstance(value, list) else "a mapping"
