"""Curation from sources to a manifest: measure, join, decide, write. Each step is kept, so that a kill loses little."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wildfern.bounded_json import parse_json
from wildfern.files import read_bytes, replacing, write_text
from wildfern.ssl.curation.by_hand import TAKEN_DOWN
from wildfern.ssl.curation.decide import Decided, decide
from wildfern.ssl.curation.detector import Detector
from wildfern.ssl.curation.feature_store import Extract, FeatureStore
from wildfern.ssl.curation.image_table import COLUMNS, ImageTable, as_small
from wildfern.ssl.curation.joined import join
from wildfern.ssl.curation.leaks import EvaluationImages
from wildfern.ssl.curation.listing import full_name
from wildfern.ssl.curation.manifest import (
    DECIDED,
    JOINED,
    MANIFEST,
    ROWS,
    SCHEMA,
    STORED,
    CurationError,
    Info,
    Manifest,
    path_on_disk,
    stored_path,
    version_path,
)
from wildfern.ssl.curation.marks import Mark, join_marks, read_marks
from wildfern.ssl.curation.measured_parts import PARTS
from wildfern.ssl.curation.people_results import PeopleResults
from wildfern.ssl.curation.places import PLACE_COLUMNS, Place, places_of
from wildfern.ssl.curation.policy import Caps, Policy, as_tree
from wildfern.ssl.curation.scan import list_images, measure_images, measured
from wildfern.ssl.curation.takedowns import add_takedowns, read_takedowns
from wildfern.ssl.curation.user_metadata import UserMetadata
from wildfern.ssl.curation.verdicts import Verdicts
from wildfern.ssl.tracking.current_progress import current_progress

MARKS = "marks.csv"
_MERGED, _REQUEST = "merged.parquet", "request.json"
_PEOPLE = {"people": pa.float32(), "people_boxes": pa.string(), "people_checked": pa.string()}


@dataclass(frozen=True)
class Curated:
    """A manifest that was just written, and the decisions in it."""

    manifest: Manifest
    decided: Decided

    @property
    def reasons(self) -> dict[str, int]:
        """How many images have each reason."""
        return dict(Counter(one.rule for found in self.decided.verdicts.reasons.values() for one in found))


@dataclass(frozen=True)
class Tools:
    """What some rules need, as opened by the caller; None where the policy asks for none.

    - detector: of people. network and extract: the network whose features are used, identified by name and digest of its weights.
    - evaluation: images of evaluation sets, for leaks. processes: that read images. device: of torch, for searches in features.
    """

    detector: Detector | None = None
    network: str | None = None
    extract: Extract | None = None
    evaluation: EvaluationImages | None = None
    processes: int = 1
    device: str = "cpu"


def scan(
    sources: Sequence[str],
    folder: str | Path,
    policy: Policy | None = None,
    *,
    metadata: Sequence[str | Path] = (),
    tools: Tools | None = None,
) -> Curated:
    """Scan sources into the manifest of `folder`, which is made if it is missing, and decide on every image.

    Only images that are new or changed are measured. Marks in `folder`/marks.csv and takedowns are honored. Raises CurationError
    for sources, metadata and marks that cannot be used. A curation that was killed goes on where it was.
    """
    folder, policy, tools = Path(folder), policy or Policy(), tools or Tools()
    _check_tools(policy, tools)
    names = [full_name(source) for source in sources]
    tables = [UserMetadata.read(path_on_disk(str(path))) for path in metadata]
    read_marks_of(folder), read_takedowns(folder)  # unusable ones are an error before the work
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    paths = [stored_path(str(Path(path).absolute())) for path in metadata]
    request = {"sources": names, "metadata": paths, "policy": as_tree(policy)}
    write_text(folder / PARTS / _REQUEST, json.dumps(request))
    progress = current_progress()
    progress.part("listing images")
    places = list_images(names, without=folder)
    progress.part(f"measuring {len(places):,} images")
    measure_images(places, folder, processes=tools.processes)
    progress.part("joining metadata")
    merged = folder / PARTS / _MERGED
    notes: list[str] = []
    _write(merged, (_with_nulls(join(rows, tables)) for rows in measured(places, folder)), SCHEMA)
    for table in tables:
        table.check_used()
        notes.append(used_words(table))
    info = Info(
        names,
        {},
        {},
        paths,
        scan_notes=notes,
        wildfern=version("wildfern"),
    )
    return _decide(folder, merged, policy, info, tools)


def unfinished(folder: str | Path) -> dict[str, Any] | None:
    """Sources, metadata and policy of a scan that was ended before its manifest was written; None if there is none."""
    try:
        found = parse_json(read_bytes(Path(folder) / PARTS / _REQUEST, 2**24))
    except (OSError, ValueError):  # none, or cut off
        return None
    texts = ("sources", "metadata")
    lists = isinstance(found, dict) and all(isinstance(found.get(name), list) for name in texts)
    if not lists or not isinstance(found.get("policy"), dict):
        return None
    return found if all(isinstance(one, str) for name in texts for one in found[name]) else None


def decide_again(folder: str | Path, policy: Policy, *, tools: Tools | None = None) -> Curated:
    """Decide again on the images of a manifest, by another policy, other marks or new takedowns, without scanning the sources."""
    folder, tools = Path(folder), tools or Tools()
    _check_tools(policy, tools)
    manifest = Manifest(folder)
    manifest.check()
    manifest.close()
    return _decide(folder, manifest.path, policy, manifest.info, tools)


def merge(folders: Sequence[str | Path], out: str | Path, policy: Policy, *, tools: Tools | None = None) -> Curated:
    """Join the manifests of several folders into one in `out`, with their marks and takedowns, and decide on all images together.

    An image that several of them have (by its place) is taken from the first. Raises CurationError for a damaged one.
    """
    out, tools = Path(out), tools or Tools()
    _check_tools(policy, tools)
    manifests = [Manifest(folder) for folder in folders]
    (out / PARTS).mkdir(parents=True, exist_ok=True)
    merged = out / PARTS / _MERGED
    _write(merged, _joined_manifests(manifests), SCHEMA)
    marks = [path for folder in (*folders, out) if (path := Path(folder) / MARKS).exists()]
    for folder in folders:
        known = {one.sha256 for one in read_takedowns(out)}
        if new := [one for one in read_takedowns(folder) if one.sha256 not in known]:
            add_takedowns(out, new)
    if marks:
        join_marks(out / MARKS, marks)
    sources = list(dict.fromkeys(source for one in manifests for source in one.info.sources))
    metadata = list(dict.fromkeys(path for one in manifests for path in one.info.metadata))
    info = Info(sources, {}, {}, metadata, wildfern=version("wildfern"))
    return _decide(out, merged, policy, info, tools, [one.path for one in manifests])


def _joined_manifests(manifests: Sequence[Manifest]) -> Iterator[pa.Table]:
    seen: set[bytes] = set()
    for manifest in manifests:
        for batch in manifest.batches():
            rows = pa.Table.from_batches([batch])
            places = zip(*(rows.column(name).to_pylist() for name in ("container", "path", "place")), strict=True)
            keys = [hashlib.blake2b("\0".join(map(str, one)).encode(), digest_size=16).digest() for one in places]
            new = [n for n, key in enumerate(keys) if key not in seen]
            seen.update(keys)
            yield _with_nulls(
                rows.take(pa.array(new, pa.int64())).select([*STORED.names, *(one.name for one in JOINED)])
            )


def read_marks_of(folder: Path) -> dict[str, Mark]:
    """The marks of a curated folder, by SHA-256; none if it has no file of marks."""
    path = folder / MARKS
    return read_marks(path) if path.exists() else {}


def used_words(table: UserMetadata) -> str:
    """How many rows of metadata are of an image, and some that are not."""
    count, first = table.unmatched()
    example = f"; for example {', '.join(first)} is none" if first else ""
    name = stored_path(table.path.name)
    alone = table.by_name_alone
    folders = f" ({alone:,} by the name of the file alone, in whatever folder the row has it)" if alone else ""
    return f"{name}: {len(table) - count:,} of its {len(table):,} rows are of images{folders}{example}; {table.columns_words}"


def _check_tools(policy: Policy, tools: Tools) -> None:
    if policy.people.detector is not None and tools.detector is None:
        raise CurationError("the policy asks for a people detector: open it and pass it as `tools`")
    if policy.features.backbone is not None and tools.extract is None:
        raise CurationError("the policy asks for features: pass the network as `tools`")
    if policy.leak.against and tools.evaluation is None:
        raise CurationError("the policy asks for leaks: pass the images of the evaluation sets as `tools`")


def _decide(folder: Path, rows: Path, policy: Policy, info: Info, tools: Tools, known: Sequence[Path] = ()) -> Curated:
    """Decide on the images of the file `rows`, which has the columns of a manifest, and write the manifest of `folder`."""
    progress = current_progress()
    progress.part("deciding")
    marks, takedowns = read_marks_of(folder), read_takedowns(folder)
    file = pq.ParquetFile(rows)
    table = file.read(COLUMNS)
    images = ImageTable(table, lambda wanted: _small(file, wanted))
    nobody = {name: pa.nulls(len(table), kind) for name, kind in _PEOPLE.items()}
    images = images.with_columns(nobody)
    checked, not_checked = [], []
    before = replace(policy, caps=Caps())  # what is above a cap may come back when others are left out
    if tools.detector is not None:
        people = PeopleResults(folder, tools.detector.description, [folder / MANIFEST, *known])
        passed = ~decide(images, before, marks, takedowns).verdicts.rejected
        wanted = _without(images, passed, people.found)
        progress.part(f"looking for {tools.detector.detects} in {int(wanted.sum()):,} images")
        people.examine(_places(file, wanted), int(wanted.sum()), tools.detector, tools.processes)
        # Others may have been examined before, by another policy: decisions are a function of images, marks and this policy.
        images = images.with_columns(people.columns(_only(images.texts("sha256"), passed)))
        checked.append(f"{tools.detector.detects}: {tools.detector.description}")
        not_checked.append(tools.detector.not_checked)
    else:
        not_checked.append("people: no detector was used, so that any image may show people")
    features = None
    if tools.extract is not None and tools.network is not None:
        store = FeatureStore(folder, tools.network)
        verdicts = decide(images, before, marks, takedowns).verdicts
        passed = ~verdicts.rejected | _marked_drop(images, marks, verdicts)  # the filter learns from these
        progress.part(f"extracting features of {int(passed.sum()):,} images")
        store.extract(
            _places(file, passed), int(passed.sum()), tools.extract, lambda done, of: progress.count(done, of, "images")
        )
        features = replace(store.of(_only(images.texts("sha256"), passed)), device=tools.device)
        checked.append(f"features: {tools.network}")
    else:
        not_checked.append("crops and other near copies: no features were used, and hashes do not find them")
    if not policy.license.allow:
        not_checked.append("licenses: license.allow is empty, so that any license passes, also none")
    if tools.evaluation is None:
        not_checked.append("leaks: no evaluation set was compared")
    else:
        checked.append(f"leaks: compared with {', '.join(policy.leak.against)}")
    progress.part("deciding")
    decided = decide(images, policy, marks, takedowns, features=features, evaluation=tools.evaluation)
    counts = Counter(np.array(["keep", "review", "reject"])[decided.verdicts.strictness].tolist())
    info = Info(
        **asdict(info)
        | {
            "policy": as_tree(policy),
            "counts": {name: counts[name] for name in ("keep", "review", "reject")},
            "checked": checked,
            "not_checked": not_checked,
            "notes": [*info.scan_notes, *decided.notes],
        }
    )
    words = json.dumps(info.as_json())
    try:
        parse_json(words)
    except ValueError as error:  # a name that is no UTF-8: nobody could read the manifest any more
        raise CurationError(f"that cannot be written into the manifest: {error}") from error
    schema = SCHEMA.with_metadata({"wildfern": words})
    with replacing(folder / MANIFEST) as beside:
        _write_rows(beside, _decided_rows(file, images, decided), schema)
        _keep_version(folder, beside)  # first: a run may start as soon as the manifest is there
    file.close()
    manifest = Manifest(folder)
    _clear(
        folder / PARTS,
        "people-*.parquet",
        *(() if rows == folder / MANIFEST else ("part-*.parquet", _MERGED, _REQUEST)),
    )
    return Curated(manifest, decided)


def _clear(parts: Path, *patterns: str) -> None:
    """Remove what is in the manifest now. Rows that a scan has measured and not yet joined stay."""
    for path in [path for pattern in patterns for path in parts.glob(pattern)]:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        parts.rmdir()


def _keep_version(folder: Path, file: Path) -> None:
    """Keep a manifest under its SHA-256, so that runs resume on what they were started with when it is replaced."""
    with file.open("rb") as content:
        path = version_path(folder, hashlib.file_digest(content, "sha256").hexdigest())
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        return
    try:
        os.link(file, path)
    except OSError:  # a file system without hard links
        with replacing(path) as beside:
            shutil.copyfile(file, beside)


def _decided_rows(file: pq.ParquetFile, images: ImageTable, decided: Decided) -> Iterator[pa.Table]:
    start = 0
    for batch in file.iter_batches(ROWS):
        rows = pa.Table.from_batches([batch])
        count = len(rows)
        columns = {
            **decided.verdicts.columns(start, count),
            "group": pa.array(decided.copies.group[start : start + count], pa.int32()),
            "cluster": pa.array(decided.cluster[start : start + count], pa.int32()),
            **{name: images.column(name, start, count) for name in _PEOPLE},
        }
        for column in DECIDED:
            rows = rows.set_column(rows.schema.get_field_index(column.name), column, columns[column.name])
        yield rows
        start += count


def _with_nulls(rows: pa.Table) -> pa.Table:
    for column in DECIDED:
        rows = rows.append_column(column, pa.nulls(len(rows), column.type))
    return rows


def _write(path: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    """A parquet file of these tables, as a whole."""
    with replacing(path) as beside:
        _write_rows(beside, tables, schema)


def _write_rows(path: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    """In row groups of `ROWS`."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.select(schema.names).cast(schema), row_group_size=ROWS)


def _places(file: pq.ParquetFile, wanted: NDArray[np.bool_]) -> Iterator[Place]:
    return places_of(file.iter_batches(ROWS, columns=PLACE_COLUMNS), wanted)


def _only(digests: Sequence[str | None], wanted: NDArray[np.bool_]) -> list[str | None]:
    """The digests of the contents that some wanted image has, None for the others."""
    found = {digest for digest, one in zip(digests, wanted.tolist(), strict=True) if one}
    return [digest if digest in found else None for digest in digests]


def _marked_drop(images: ImageTable, marks: Mapping[str, str], verdicts: Verdicts) -> NDArray[np.bool_]:
    """Images that can be read and are marked drop, without those that were taken down."""
    gone = {image for image, found in verdicts.reasons.items() if any(one.rule == TAKEN_DOWN for one in found)}
    digests = images.texts("sha256")
    marked = [marks.get(digest or "") == "drop" and image not in gone for image, digest in enumerate(digests)]
    return np.array(marked, bool) & images.readable


def _without(images: ImageTable, wanted: NDArray[np.bool_], known: Mapping[str, object]) -> NDArray[np.bool_]:
    return wanted & np.array([digest not in known for digest in images.texts("sha256")], bool)


def _small(file: pq.ParquetFile, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The small versions of these images, ascending, from the row groups they are in."""
    starts = np.cumsum([0, *(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups))])
    group_of = np.searchsorted(starts, wanted, "right") - 1
    parts = []
    for group in np.unique(group_of).tolist():
        rows = wanted[group_of == group] - starts[group]
        parts.append(as_small(file.read_row_group(group, ["small"]).column("small").take(pa.array(rows))))
    return np.concatenate(parts) if parts else np.zeros((0, 16, 16, 3), np.uint8)
