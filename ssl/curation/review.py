"""What the review page shows of a curated folder: which images, in which order, with their thumbnails."""

import heapq
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.files import write_text
from wildfern.ssl.curation.decide import TAKEN_DOWN, Decided
from wildfern.ssl.curation.manifest import KEEP, REJECT, REVIEW, Manifest
from wildfern.ssl.curation.places import Place
from wildfern.ssl.curation.review_page import About, DuplicateGroup, Near, Sheet, Shown, review_page
from wildfern.ssl.curation.rule_words import RULES, RuleWords
from wildfern.ssl.curation.treemap import ClusterTile
from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.data.worker_threads import in_threads
from wildfern.ssl.evaluation.report.thumbnails import Thumbnail, thumbnail
from wildfern.ssl.tracking.current_progress import current_progress

PAGE = "review.html"
SHEET, GROUPS, NEAR, PASSED = 120, 120, 60, 60  # images of a sheet, groups, images near a threshold, kept images
COPIES = 12  # images of a group
_TILES, _INSIDE, _IMAGES = 60, 16, 4  # clusters of the highest level, clusters in one, images of a cluster
_COLUMNS = [
    *("sha256", "pixels_sha256", "kind", "container", "path", "place", "bytes", "width", "height"),
    *("license", "author", "decision", "reasons", "group", "people"),
]
_PASSED = RuleWords("images that passed, drawn by their SHA-256: look for what the rules missed", "", True)


@dataclass
class _Ranked:
    """The `most` first rows by key, of any number."""

    most: int
    rows: list["_Entry"] = field(default_factory=list)

    def add(self, key: Any, number: int, row: dict[str, Any]) -> None:
        """Add a row with a number of its own; of equal keys the lower number comes first."""
        entry = _Entry((key, number), row)
        if len(self.rows) < self.most:
            heapq.heappush(self.rows, entry)
        else:
            heapq.heappushpop(self.rows, entry)

    def in_order(self) -> list[dict[str, Any]]:
        return [entry.row for entry in sorted(self.rows, reverse=True)]


@dataclass(frozen=True)
class _Entry:
    """A row in a heap whose first entry is the one to drop: that with the highest key."""

    key: Any
    row: dict[str, Any]

    def __lt__(self, other: "_Entry") -> bool:
        return bool(self.key > other.key)


def write_review(folder: str | Path, manifest: Manifest, decided: Decided | None = None) -> Path:
    """Write review.html of a curated folder and return its path. `decided` adds the treemap of clusters."""
    progress = current_progress()
    progress.part("writing the review page")
    sheets: dict[str, _Ranked] = {}
    totals: Counter[str] = Counter()
    actions: dict[str, Counter[str]] = {}
    passed = _Ranked(PASSED)
    people = manifest.info.policy.get("people", {})
    near = {name: _Ranked(NEAR) for name in ("reject", "review")}
    groups = _groups_to_show(manifest)
    members: dict[int, list[dict[str, Any]]] = {group: [] for group in groups}
    wanted_clusters = _cluster_images(decided)
    clustered: dict[int, dict[str, Any]] = {}
    number = 0
    for batch in manifest.batches(_COLUMNS):
        for row in batch.to_pylist():
            for reason in row["reasons"]:
                rule = reason["rule"]
                totals[rule] += 1
                actions.setdefault(rule, Counter())[reason["action"]] += 1
                words = _words(rule)
                value = reason["value"] if words.value_name else None
                key = 0.0 if value is None else value if words.ascending else -value
                sheets.setdefault(rule, _Ranked(SHEET)).add(
                    key, number, row | {"value": value, "detail": reason["detail"]}
                )
            if row["decision"] == KEEP and row["sha256"]:
                passed.add(row["sha256"][::-1], number, row | {"value": None, "detail": ""})
            if row["people"] is not None and people:
                for name, ranked in near.items():
                    if row["people"] > 0:
                        ranked.add(
                            abs(row["people"] - people[name]), number, row | {"value": row["people"], "detail": ""}
                        )
            if row["group"] in members:
                _add_copy(members[row["group"]], row | {"value": None, "detail": _details(row)})
            if number in wanted_clusters:
                clustered[number] = row
            number += 1
    shown = _Shown()
    for ranked in (*sheets.values(), passed, *near.values()):
        shown.want(entry.row for entry in ranked.rows)
    for rows in members.values():
        shown.want(rows)
    shown.want(clustered.values())
    shown.read()
    order = sorted(totals, key=lambda rule: (list(RULES).index(rule) if rule in RULES else len(RULES), rule))
    page_sheets = [_sheet(rule, _words(rule), actions[rule], totals[rule], sheets[rule], shown) for rule in order]
    # What is to be decided comes first, and is open.
    page_sheets.sort(key=lambda sheet: not sheet.action_counts.get(REVIEW))
    page_sheets.append(_sheet("passed", _PASSED, {}, manifest.info.counts["keep"], passed, shown))
    about = About(
        title=Path(folder).resolve().name,
        sources=manifest.info.sources,
        policy_name=str(manifest.info.policy.get("name", "")),
        images=len(manifest),
        decisions=manifest.info.counts,
        reasons={rule: totals[rule] for rule in order},
        people_words=_checked_words(manifest),
        manifest_sha256=manifest.sha256,
        command=f"wildfern curate review {shlex.quote(str(folder))} --marks marks.csv",
        notes=manifest.info.notes,
    )
    page_groups = [_group(rows, shown) for rows in members.values() if len(rows) > 1]
    page_near = [
        Near(
            people[name],
            f"people: {name}",
            [shown.of(row) for row in sorted(ranked.in_order(), key=lambda row: -row["value"])],
        )
        for name, ranked in near.items()
        if ranked.rows
    ]
    path = Path(folder) / PAGE
    write_text(path, review_page(about, page_sheets, page_groups, page_near, _clusters(decided, clustered, shown)))
    progress.detail("")
    return path


def _words(rule: str) -> RuleWords:
    return RULES.get(rule, RuleWords(rule, "value", False))


def _checked_words(manifest: Manifest) -> str:
    """What was checked, and what was not."""
    checked = f"Checked: {'; '.join(manifest.info.checked)}. " if manifest.info.checked else ""
    return f"{checked}Not checked: {'; '.join(manifest.info.not_checked)}."


def _details(row: Mapping[str, Any]) -> str:
    return "; ".join(reason["detail"] for reason in row["reasons"] if reason["rule"].endswith("duplicate"))


def _groups_to_show(manifest: Manifest) -> list[int]:
    """The largest groups of copies."""
    groups = manifest.table(["group"]).column("group").to_numpy()
    counts = np.bincount(groups[groups >= 0])
    largest: list[int] = np.argsort(-counts, kind="stable")[:GROUPS].tolist()
    return [group for group in largest if counts[group]]


def _sheet(
    rule: str, words: RuleWords, actions: Mapping[str, int], total: int, ranked: _Ranked, shown: "_Shown"
) -> Sheet:
    items = [shown.of(row) for row in ranked.in_order()]
    return Sheet(rule, words.words, actions, total, words.ascending, words.value_name, items)


def _add_copy(rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    """Add an image to the first `COPIES` of its group: the best one, which is no copy of another, comes first."""
    if not row["detail"] and (not rows or rows[0]["detail"]):
        rows.insert(0, row)
    else:
        rows.append(row)
    del rows[COPIES:]


def _group(rows: list[dict[str, Any]], shown: "_Shown") -> DuplicateGroup:
    return DuplicateGroup(shown.of(rows[0]), [shown.of(row) for row in rows[1:]])


_Key = tuple[str, str, int]


def _key(row: Mapping[str, Any]) -> _Key:
    """What tells an image from others: members of a shard may have the same path."""
    return row["container"], row["path"], row["place"]


class _Shown:
    """Thumbnails of images, each read once; a gray square for those that cannot be read, or that were taken down."""

    def __init__(self) -> None:
        self._rows: dict[_Key, dict[str, Any]] = {}
        self._thumbnails: dict[_Key, Thumbnail] = {}

    def want(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            self._rows.setdefault(_key(row), row)

    def read(self) -> None:
        found = in_threads(_read, self._rows.values(), "thumbnail")
        self._thumbnails = dict(zip(self._rows, found, strict=True))

    def thumbnail(self, row: Mapping[str, Any]) -> Thumbnail:
        return self._thumbnails.get(_key(row)) or _nothing()

    def of(self, row: Mapping[str, Any]) -> Shown:
        return Shown(
            sha256=row["sha256"] if row["pixels_sha256"] else "",
            path=row["path"],
            thumbnail=self.thumbnail(row),
            decision=row["decision"],
            value=row["value"],
            detail=row["detail"],
            width=row["width"] or 0,
            height=row["height"] or 0,
            bytes=row["bytes"],
            license=row["license"],
            author=row["author"],
        )


def _read(row: Mapping[str, Any]) -> Thumbnail | None:
    if row["width"] is None or any((one["rule"], one["action"]) == (TAKEN_DOWN, REJECT) for one in row["reasons"]):
        return None
    place = Place.of_row(row)
    try:
        return thumbnail(Decoding(max_side=256).decode(place.read_checked()), row["path"])
    except DataError:  # gone or changed since the scan
        return None


@cache
def _nothing() -> Thumbnail:
    return thumbnail(np.full((8, 8, 3), 128, np.uint8))


def _cluster_images(decided: Decided | None) -> set[int]:
    """The images that are shown in the treemap."""
    return {image for images in _members(decided).values() for image in images}


def _members(decided: Decided | None) -> dict[int, list[int]]:
    """For each of the clusters of the lowest level that are shown, its images nearest to the centroid."""
    if decided is None or not decided.levels:
        return {}
    lowest = decided.levels[0]
    of_item, distance = lowest.of_item.numpy(force=True), lowest.distance.numpy(force=True)
    order = np.lexsort((distance, of_item))
    found: dict[int, list[int]] = {}
    shown = {cluster for _, children in _tree(decided) for cluster in children}
    for place in order.tolist():
        cluster = int(of_item[place])
        if cluster in shown and len(found.setdefault(cluster, [])) < _IMAGES:
            found[cluster].append(int(decided.clustered[place]))
    return found


def _tree(decided: Decided) -> list[tuple[int, list[int]]]:
    """The largest clusters of the highest level with the largest of the lowest level inside each."""
    counts = _counts(decided)
    top = np.arange(len(counts))
    for level in decided.levels[1:]:
        top = level.of_item.numpy(force=True)[top]
    sizes = np.bincount(top, weights=counts)
    tree = []
    for cluster in np.argsort(-sizes, kind="stable")[:_TILES].tolist():
        inside = np.flatnonzero((top == cluster) & (counts > 0))
        largest = inside[np.argsort(-counts[inside], kind="stable")[:_INSIDE]]
        if len(largest):
            tree.append((cluster, largest.tolist()))
    return tree


def _counts(decided: Decided) -> NDArray[np.int64]:
    lowest = decided.levels[0]
    return np.bincount(lowest.of_item.numpy(force=True), minlength=len(lowest.centroids))


def _clusters(decided: Decided | None, rows: Mapping[int, dict[str, Any]], shown: _Shown) -> Sequence[ClusterTile]:
    if decided is None or not decided.levels:
        return []
    counts, members = _counts(decided), _members(decided)

    def tile(cluster: int) -> ClusterTile:
        images = [shown.thumbnail(rows[image]) for image in members.get(cluster, [])]
        return ClusterTile(int(counts[cluster]), f"cluster {cluster}", images)

    if len(decided.levels) == 1:
        return [tile(cluster) for _, children in _tree(decided) for cluster in children]
    tiles = []
    for number, children in _tree(decided):
        inside = [tile(cluster) for cluster in children]
        images = [one.thumbnails[0] for one in inside if one.thumbnails][:_IMAGES]
        tiles.append(ClusterTile(sum(one.size for one in inside), f"cluster {number}", images, inside))
    return tiles
