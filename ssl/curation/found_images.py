"""Looking up images of a manifest: to take them down, and to compare two manifests."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from wildfern.ssl.curation.duplicates import QUALITY
from wildfern.ssl.curation.manifest import Manifest, path_on_disk
from wildfern.ssl.curation.takedowns import Takedown

_COLUMNS = [*("source", "container", "path", "sha256", "pixels_sha256", "phash", "phash_quality"), *("author", "group")]


def find_images(manifest: Manifest, wanted: Mapping[str, set[str]]) -> tuple[list[Takedown], list[tuple[str, str]]]:
    """The images with one of these values of `sha256`, `path` or `author`, and all copies of them; and values that none has.

    A path is relative to its source, or full, as in the manifest or as on the disk. An image of which not one byte could be read
    has no digest, and is not found. Time and reason are left open.
    """
    missing = {(column, value) for column, values in wanted.items() for value in values}
    sought = frozenset(missing)
    chosen: dict[int, dict[str, Any]] = {}
    groups: set[int] = set()
    digests: set[str] = set()
    for number, row in _rows(manifest):
        if row["sha256"] is None:
            continue
        paths = row["path"], f"{row['container']}/{row['path']}"
        names = {("sha256", row["sha256"]), ("author", row["author"])}
        names |= {("path", name) for path in paths for name in (path, path_on_disk(path))}
        if sought & names:
            missing -= names
            chosen[number] = row
            groups |= {row["group"]} - {-1}
            digests.add(row["sha256"])
    if chosen:
        for number, row in _rows(manifest):
            if row["group"] in groups or row["sha256"] in digests:
                chosen[number] = row
    return [_takedown(chosen[number]) for number in sorted(chosen)], sorted(missing)


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
