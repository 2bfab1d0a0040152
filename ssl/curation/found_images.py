"""Looking up images of a manifest: to take them down, and to compare two manifests."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wildfern.ssl.curation.duplicates import QUALITY
from wildfern.ssl.curation.manifest import Manifest, path_on_disk
from wildfern.ssl.curation.takedowns import Takedown

_COLUMNS = [*("source", "container", "path", "sha256", "pixels_sha256", "phash", "phash_quality"), *("author", "group")]
_NEAR = 3  # paths that are suggested


class Found(NamedTuple):
    """- images: those that were wanted, and all copies of them. missing: values of a column that no image has.
    - near: for a path that no image has, some that end like it.
    """

    images: list[Takedown]
    missing: list[tuple[str, str]]
    near: dict[str, list[str]]


def find_images(manifest: Manifest, wanted: Mapping[str, set[str]]) -> Found:
    """The images with one of these values of `sha256`, `path` or `author`, and all copies of them.

    A path is relative to its source, or full, as in the manifest or as on the disk, or relative to the working folder. An image
    of which not one byte could be read has no digest, and is not found. Time and reason are left open.
    """
    missing = {(column, value) for column, values in wanted.items() for value in values}
    meant = {
        (column, name): value
        for column, value in missing
        for name in (_spellings(value) if column == "path" else (value,))
    }
    ends = {os.path.basename(value): value for column, value in missing if column == "path"}
    near: dict[str, list[str]] = {}
    chosen: dict[int, dict[str, Any]] = {}
    groups: set[int] = set()
    digests: set[str] = set()
    for number, row in _rows(manifest):
        if row["sha256"] is None:
            continue
        paths = row["path"], f"{row['container']}/{row['path']}"
        names = {("sha256", row["sha256"]), ("author", row["author"])}
        names |= {("path", name) for path in paths for name in (path, path_on_disk(path))}
        if found := names & meant.keys():
            missing -= {(column, meant[column, name]) for column, name in found}
            chosen[number] = row
            groups |= {row["group"]} - {-1}
            digests.add(row["sha256"])
        elif (value := ends.get(os.path.basename(row["path"]))) is not None and len(near.setdefault(value, [])) < _NEAR:
            near[value].append(row["path"])
    if chosen:
        for number, row in _rows(manifest):
            if row["group"] in groups or row["sha256"] in digests:
                chosen[number] = row
    return Found([_takedown(chosen[number]) for number in sorted(chosen)], sorted(missing), near)


def _spellings(path: str) -> set[str]:
    return {path, os.path.normpath(path), os.path.abspath(path)}


def _takedown(row: Mapping[str, Any]) -> Takedown:
    featured = row["phash"] is not None and row["phash_quality"] >= QUALITY
    return Takedown(
        time="",
        sha256=row["sha256"],
        pixels_sha256=row["pixels_sha256"],
        phash=row["phash"] if featured else None,
        source=row["source"],
        container=row["container"],
        path=row["path"],
        reason="",
    )


def _rows(manifest: Manifest) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for batch in manifest.batches(_COLUMNS):
        for row in batch.to_pylist():
            yield number, row
            number += 1


@dataclass
class Difference:
    """How one manifest becomes another: images by path, and changes of decisions, with the rules that made them."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)  # other bytes at the same place
    decisions: list[tuple[str, str, str]] = field(default_factory=list)  # path, before, after


def difference(one: Manifest, other: Manifest) -> Difference:
    """What differs between two manifests. The rows of `one` are in memory, about 300 bytes for each."""
    before = {place: (row["sha256"], row["path"], _words(row)) for place, row in _decisions(one)}
    found = Difference()
    for place, row in _decisions(other):
        name, words = row["path"], _words(row)
        former = before.pop(place, None)
        if former is None:
            found.added.append(name)
            continue
        if former[0] != row["sha256"]:
            found.changed.append(name)
        if former[2] != words:
            found.decisions.append((name, former[2], words))
    found.removed = [path for _, path, _ in before.values()]
    return found


def _decisions(manifest: Manifest) -> Iterator[tuple[tuple[str, str, int], dict[str, Any]]]:
    """Rows by their container, path, and how many of that path come before: a shard may have several members of one name."""
    seen: dict[tuple[str, str], int] = {}
    for batch in manifest.batches(["kind", "container", "path", "sha256", "decision", "reasons"]):
        for row in batch.to_pylist():
            place = row["container"], row["path"]
            count = seen.get(place, 0) if row["kind"] == "webdataset" else 0
            if row["kind"] == "webdataset":
                seen[place] = count + 1
            yield (*place, count), row


def _words(row: Mapping[str, Any]) -> str:
    rules = dict.fromkeys(reason["rule"] for reason in row["reasons"])
    return f"{row['decision']} ({', '.join(rules)})" if rules else str(row["decision"])
