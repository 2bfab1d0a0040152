"""Offsets of the images and labels in plain tar files, for random access without unpacking."""

import math
import posixpath
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, BinaryIO

from numpy.typing import NDArray

from wildfern.bounded_json import parse_json
from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.file_names import PassedOver, is_image, is_litter
from wildfern.ssl.data.steady_file import SteadyFile
from wildfern.ssl.data.tar_headers import Member, TarFault, members
from wildfern.ssl.data.worker_threads import check_wanted

PREFERRED = (".jpg", ".jpeg", ".png", ".webp")  # of several images of one sample, the first of these is read
MOST_LABEL_BYTES = 2**20  # of a .cls or .json
MOST_NAME = 1000  # characters of the name of a class
MOST_CLASSES = 10_000  # of one image
COMPILED_FROM = 2**28  # bytes; the headers of less are read before the loops are compiled
_COMPRESSED = re.compile(rb"\x1f\x8b|BZh\d1AY&SY|\xfd7zXZ|\x28\xb5\x2f\xfd", re.DOTALL)  # gzip, bzip2, xz, zstd
_NO_LABEL = (0, 0)


class MemberNames:
    """The names of members in a buffer of text: of number i, its bytes from ends[i] to ends[i + 1]. Others become surrogates."""

    def __init__(self, text: bytearray | NDArray, ends: array | NDArray) -> None:
        self.text, self.ends = text, ends

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, number: int) -> str:
        if not 0 <= number < len(self):
            raise IndexError(f"name {number} is out of range: there are {len(self)}")
        return bytes(self.text[self.ends[number] : self.ends[number + 1]]).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        text = bytes(self.text)
        for start, end in pairwise(self.ends.tolist()):
            yield text[start:end].decode("utf-8", "surrogateescape")


@dataclass
class ShardIndex:
    """The samples of one shard in order: key, offset and size of the image, offset and size of the label (size 0: none)."""

    file: SteadyFile
    text: bytearray = field(default_factory=bytearray)  # names of the images
    ends: array = field(default_factory=lambda: array("q", [0]))
    offsets: array = field(default_factory=lambda: array("q"))
    sizes: array = field(default_factory=lambda: array("q"))
    label_offsets: array = field(default_factory=lambda: array("q"))
    label_sizes: array = field(default_factory=lambda: array("q"))
    in_json: bytearray = field(default_factory=bytearray)  # whether the label is "label" of a .json
    members: int = 0  # files, without those of operating systems
    passed_over: PassedOver = field(default_factory=PassedOver)
    lone_labels: int = 0  # .cls and .json with no image beside them
    fault: str | None = None  # why the shard could not be read to the end

    @property
    def keys(self) -> MemberNames:
        """The names of the images."""
        return MemberNames(self.text, self.ends)


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


def index_shard(shard: str | SteadyFile, compiled: bool | None = None) -> ShardIndex:
    """Read the headers of one shard. Consecutive members with the same name up to the first dot of the base name are a sample.

    The image is the first member ending in jpg, jpeg, png or webp, else the first with another image extension; the label is the
    content of .cls, else "label" in .json. A damaged shard keeps the samples before the damage; `fault` describes it.

    `compiled` uses the compiled loops, which take seconds to compile once on a machine; None: for a shard of 256 MiB or more.
    """
    index = ShardIndex(shard if isinstance(shard, SteadyFile) else SteadyFile.of(shard))
    with index.file.open() as file:
        if _COMPRESSED.match(file.read(10)):
            raise DataError(
                f"{index.file.path} is compressed; random access needs plain tar: gunzip it (images do not get smaller by it)"
            )
        file.seek(0)
        rest: int | None = 0
        if index.file.size >= COMPILED_FROM if compiled is None else compiled:
            from wildfern.ssl.data.tar_walk import walk_shard  # looks for compiled code

            rest = walk_shard(file, index)
        if rest is not None:
            _read_on(file, rest, index)
    return index


def _read_on(file: BinaryIO, at: int, index: ShardIndex) -> None:
    """Add the samples from byte `at` on, where one starts."""
    sample, fault = _Sample(""), None
    try:
        for number, member in enumerate(members(file, index.file.size, at)):
            if not number % 256:
                check_wanted()
            if is_litter(member.name):
                continue
            if member.sparse or member.link:
                index.members += 1
                index.passed_over.add(member.name, member.link or "sparse")
                continue
            folder, base = posixpath.split(member.name)
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
        index.fault = f"truncated or damaged after {len(index.offsets)} images: {fault}"


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
        index.text += name.encode("utf-8", "surrogateescape")
        index.ends.append(len(index.text))
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
