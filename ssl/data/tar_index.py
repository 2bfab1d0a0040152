"""Offsets of the images and labels in plain tar files, for random access without unpacking."""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.file_names import PassedOver, is_image, is_litter

PREFERRED = (".jpg", ".jpeg", ".png", ".webp")  # of several images of one sample, the first of these is read
_COMPRESSED = re.compile(rb"\x1f\x8b|BZh\d1AY&SY|\xfd7zXZ|\x28\xb5\x2f\xfd", re.DOTALL)  # gzip, bzip2, xz, zstd
_NO_LABEL = (0, 0)


@dataclass
class ShardIndex:
    """The samples of one shard in order: key, offset and size of the image, offset and size of the label (size 0: none)."""

    path: str
    keys: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    labels: list[tuple[int, int]] = field(default_factory=list)
    in_json: list[bool] = field(default_factory=list)  # whether the label is "label" of a .json
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


def index_shard(path: str) -> ShardIndex:
    """Read the headers of one shard. Consecutive members with the same name up to the first dot of the base name are a sample.

    The image is the first member ending in jpg, jpeg, png or webp, else the first with another image extension; the label is the
    content of .cls, else "label" in .json. A damaged shard keeps the samples before the damage; `fault` describes it.
    """
    index = ShardIndex(path)
    length = os.path.getsize(path)
    with open(path, "rb") as file:
        if _COMPRESSED.match(file.read(10)):
            raise DataError(
                f"{path} is compressed; random access needs plain tar: gunzip it (images do not get smaller by it)"
            )
        file.seek(0)
        sample, fault = _Sample(""), None
        try:
            for member in _members(file):
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError("the last file is cut off")
                if is_litter(member.name):
                    continue
                folder, base = os.path.split(member.name)
                stem, _, extension = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if key != sample.key:
                    _add(index, sample)
                    sample = _Sample(key)
                _take(index, sample, member, extension)
        except (tarfile.TarError, OSError) as error:
            fault = str(error)
        _add(index, sample)
    if fault is not None:
        index.fault = f"truncated or damaged after {len(index.keys)} images: {fault}"
    return index


def read_labels(path: str, labels: list[tuple[int, int, bool]]) -> list[Any]:
    """The labels of a shard at these (offset, size, in_json), as written; None for size 0 and for what cannot be parsed."""
    with open(path, "rb") as file:
        found = []
        for offset, size, in_json in labels:
            file.seek(offset)
            found.append(_label(file.read(size), in_json) if size else None)
        return found


def _take(index: ShardIndex, sample: _Sample, member: tarfile.TarInfo, extension: str) -> None:
    index.members += 1
    ending = extension.lower()
    preferred = ending.endswith(tuple(e[1:] for e in PREFERRED))
    place = (member.offset_data, member.size)
    if is_image(member.name) and (sample.image is None or (preferred and not sample.is_preferred)):
        if sample.image is not None:
            index.passed_over.add(sample.image[0])
        sample.image, sample.is_preferred = (member.name, *place), preferred
    elif ending == "cls" or (ending == "json" and sample.label == _NO_LABEL):
        sample.label, sample.in_json = place, ending == "json"
    elif ending not in ("cls", "json"):
        index.passed_over.add(member.name, f".{ending}" if ending else "")


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # else it keeps every header
            if member.isfile():
                yield member
        file.seek(tar.offset)
        if file.read(512).strip(b"\0"):  # tarfile treats an unreadable header as the end
            raise tarfile.ReadError(f"no tar header at byte {tar.offset}")


def _add(index: ShardIndex, sample: _Sample) -> None:
    if sample.image is not None:
        name, offset, size = sample.image
        index.keys.append(name)
        index.offsets.append(offset)
        index.sizes.append(size)
        index.labels.append(sample.label)
        index.in_json.append(sample.in_json)
    elif sample.label != _NO_LABEL:
        index.lone_labels += 1


def _label(content: bytes, in_json: bool) -> Any:
    try:
        text = content.decode().strip()
        value = json.loads(text).get("label") if in_json else _list_in(text)
    except (ValueError, AttributeError, RecursionError):
        return None
    value = text if value is None and not in_json else value
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"-?\d{1,18}", value) else value or None
    return value


def _list_in(text: str) -> list[Any] | None:
    """The list that a .cls holds for an image of several classes, such as [0, 2]; None for other texts."""
    try:
        found = json.loads(text) if text.startswith("[") else None
    except ValueError:
        return None
    return found if isinstance(found, list) else None
