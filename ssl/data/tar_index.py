"""Offsets of the images in plain tar files, for random access without unpacking."""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from wildfern.ssl.data.base import DataError

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


@dataclass
class ShardIndex:
    """The samples of one shard in order: key, offset and size of the image, label as written (None: no label)."""

    path: str
    keys: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    labels: list[int | str | None] = field(default_factory=list)
    fault: str | None = None  # why the shard could not be read to the end


@dataclass
class _Sample:
    key: str
    image: tuple[str, int, int] | None = None
    label: int | str | None = None


def index_shard(path: str, *, labels: bool) -> ShardIndex:
    """Read the headers of one shard. Consecutive members with the same name up to the first dot of the base name are a sample.

    The image is the first member ending in jpg, jpeg, png or webp; the label is the content of .cls, else "label" in .json.
    A damaged or truncated shard keeps the samples before the damage; `fault` describes it.
    """
    index = ShardIndex(path)
    length = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise DataError(
                f"{path} is compressed; random access needs plain tar: gunzip it (images do not get smaller by it)"
            )
        file.seek(0)
        sample, fault = _Sample(""), None
        try:
            for member in _members(file):
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError("the last file is cut off")
                folder, base = os.path.split(member.name)
                stem, _, extension = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if key != sample.key:
                    _add(index, sample)
                    sample = _Sample(key)
                kind = extension.lower().rpartition(".")[2]
                if kind in IMAGE_EXTENSIONS and sample.image is None:
                    sample.image = (member.name, member.offset_data, member.size)
                elif labels and extension in ("cls", "json") and (extension == "cls" or sample.label is None):
                    file.seek(member.offset_data)
                    sample.label = _label(extension, file.read(member.size))
        except (tarfile.TarError, OSError) as error:
            fault = str(error)
        _add(index, sample)
    if fault is not None:
        index.fault = f"truncated or damaged after {len(index.keys)} images: {fault}"
    return index


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
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


def _label(extension: str, content: bytes) -> int | str | None:
    try:
        text = content.decode().strip()
        value = text if extension == "cls" else json.loads(text).get("label")
    except (ValueError, AttributeError):
        return None
    if isinstance(value, str):
        return int(value) if value.lstrip("-").isdecimal() else value or None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
