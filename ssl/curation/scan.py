"""Measure all images of some sources, each once: streaming, by any number of processes, resumed where it was ended."""

import os
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wildfern.printable import printable
from wildfern.ssl.curation.listing import Container, Listed, containers, full_name
from wildfern.ssl.curation.manifest import PLACE, CurationError, path_on_disk, stored_path
from wildfern.ssl.curation.measure import measure_listed
from wildfern.ssl.curation.measured_parts import PARTS, MeasuredParts
from wildfern.ssl.curation.workers import workers
from wildfern.ssl.tracking.current_progress import current_progress

_TASK = 16  # images: few enough that the last ones keep all workers busy
_FEW = 1000  # images for which starting processes takes longer than measuring
_LISTED = 1 << 14  # rows of a table


def list_images(sources: Sequence[str], without: Path | None = None) -> pa.Table:
    """All images of these sources, with the columns `PLACE` of the manifest; about 100 bytes and the path of each in memory.

    `without`: a folder below a source that is left out, where the manifest is written.

    Raises CurationError for a source that is named twice or does not exist, DataError for one that cannot be listed.
    """
    progress, pieces, seen, count = current_progress(), [], set[tuple[str, str]](), 0
    for source in map(full_name, sources):
        for container in containers(source):
            # Two names of one folder are a mistake. Two of one file are usual: caches keep equal files once.
            name = os.path.realpath(container.name) if container.kind == "folder" else container.name
            if (container.kind, name) in seen:
                raise CurationError(f"{container.name} is named twice; name each source once")
            seen.add((container.kind, name))
            items = _outside(container, container.items(), without)
            while part := list(islice(items, _LISTED)):
                pieces.append(_table(source, container, part))
                count += len(part)
                progress.detail(f"listing {printable(container.name)}: {count:,} images")
    progress.detail("")
    if not pieces:
        raise CurationError(f"no images in {', '.join(sources)}")
    return pa.concat_tables(pieces).unify_dictionaries()


def _outside(container: Container, items: Iterator[Listed], without: Path | None) -> Iterator[Listed]:
    """The items that are not below the folder `without`."""
    if without is None or container.kind != "folder":
        return items
    inside = os.path.relpath(os.path.realpath(without), os.path.realpath(container.name))
    return items if inside.startswith("..") else (item for item in items if not item.path.startswith(f"{inside}/"))


def measure_images(places: pa.Table, folder: Path, *, processes: int = 1) -> int:
    """Measure the images of `list_images` that are new or changed since they were last measured; returns their number.

    Those that could not be read are tried again. What is measured is in `folder` within 20 s, also if this is killed. About
    `processes`, see `workers`.
    """
    parts, progress = MeasuredParts(folder), current_progress()
    known = parts.known(places)
    missing = known < 0
    missing[~missing] = parts.unread(known[~missing])
    done, count = 0, int(missing.sum())
    with workers(min(processes, 1 + count // _FEW)) as run:
        try:
            for rows in run(measure_listed, _tasks(places, missing)):
                parts.add(rows)
                done += len(rows)
                progress.count(done, count, "images", "measuring")
        finally:
            parts.flush()
    progress.detail("")
    return count


def measured(places: pa.Table, folder: Path, rows: int = _LISTED) -> Iterator[pa.Table]:
    """The measured images in the order of `places`, with the columns `STORED`, some thousand at a time."""
    parts = MeasuredParts(folder)
    known = parts.known(places)
    for start in range(0, len(places), rows):
        numbers = known[start : start + rows]
        if (numbers < 0).any():
            raise CurationError(f"{folder / PARTS} was changed during the scan: run the same again")
        yield parts.take(numbers).set_column(0, PLACE[0], places.column("source").slice(start, rows))


def _table(source: str, container: Container, items: list[Listed]) -> pa.Table:
    count = len(items)
    columns = {
        "source": [source] * count,
        "container": [stored_path(container.name)] * count,
        "path": [stored_path(item.path) for item in items],
        "place": [item.place for item in items],
        "bytes": [item.bytes for item in items],
        "modified": [item.modified for item in items],
        "kind": [container.kind] * count,
    }
    return pa.Table.from_pydict(columns, pa.schema(PLACE))


def _tasks(places: pa.Table, missing: NDArray[np.bool_]) -> Iterator[tuple[str, str, list[Listed]]]:
    """The missing images, of one container at a time, in order: its kind, its name, and some images."""
    for start in range(0, len(places), _LISTED):
        some = places.slice(start, _LISTED).filter(pa.array(missing[start : start + _LISTED]))
        texts = [some.column(name).cast(pa.string()) for name in ("kind", "container", "path")]
        places_sizes_times = [some.column(name) for name in ("place", "bytes", "modified")]
        columns = [column.to_pylist() for column in (*texts, *places_sizes_times)]
        for (kind, name), rows in groupby(zip(*columns, strict=True), itemgetter(0, 1)):
            items = (Listed(path_on_disk(path), *numbers) for _, _, path, *numbers in rows)
            while task := list(islice(items, _TASK)):
                yield kind, path_on_disk(name), task
