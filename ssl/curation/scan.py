"""Measure all images of some sources, each once: streaming, by any number of processes, resumed where it was ended."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wildfern.ssl.curation.listing import Container, Listed, containers, full_name
from wildfern.ssl.curation.manifest import PLACE, CurationError, path_on_disk, stored_path
from wildfern.ssl.curation.measure import measure_listed
from wildfern.ssl.curation.measured_parts import MeasuredParts
from wildfern.ssl.curation.workers import workers
from wildfern.ssl.tracking.current_progress import current_progress

_TASK = 64  # images
_FEW = 1000  # images for which starting processes takes longer than measuring
_LISTED = 1 << 14  # rows of a table


def list_images(sources: Sequence[str]) -> pa.Table:
    """All images of these sources, with the columns `PLACE` of the manifest; about 100 bytes and the path of each in memory.

    Raises CurationError for a source that is named twice or does not exist, DataError for one that cannot be listed.
    """
    progress, pieces, seen = current_progress(), [], set[tuple[str, str]]()
    for source in map(full_name, sources):
        for container in containers(source):
            if (container.kind, container.name) in seen:
                raise CurationError(f"{container.name} is named twice; name each source once")
            seen.add((container.kind, container.name))
            items = container.items()
            while part := list(islice(items, _LISTED)):
                pieces.append(_table(source, container, part))
                progress.detail(f"listing {container.name}: {sum(map(len, pieces)):,} images")
    progress.detail("")
    if not pieces:
        raise CurationError(f"no images in {', '.join(sources)}")
    return pa.concat_tables(pieces).unify_dictionaries()


def measure_images(places: pa.Table, folder: Path, *, processes: int = 1) -> int:
    """Measure the images of `list_images` that are new or changed since they were last measured; returns their number.

    What is measured is in `folder` within 20 s, also if this is killed. About `processes`, see `workers`.
    """
    parts, progress = MeasuredParts(folder), current_progress()
    try:
        missing = np.flatnonzero(parts.known(places) < 0)
        done = 0
        with workers(min(processes, 1 + len(missing) // _FEW)) as run:
            try:
                for rows in run(measure_listed, _tasks(places, missing)):
                    parts.add(rows)
                    done += len(rows)
                    progress.count(done, len(missing), "images", "measuring")
            finally:
                parts.flush()
    finally:
        parts.close()
    progress.detail("")
    return len(missing)


def measured(places: pa.Table, folder: Path, rows: int = _LISTED) -> Iterator[pa.Table]:
    """The measured images in the order of `places`, with the columns `STORED`, some thousand at a time."""
    parts = MeasuredParts(folder)
    try:
        known = parts.known(places)
        for start in range(0, len(places), rows):
            numbers = known[start : start + rows]
            if (numbers < 0).any():
                raise CurationError(f"images changed while {folder} was being scanned: run the same again")
            found = parts.take(numbers)
            sources = places.column("source").slice(start, rows)
            yield found.set_column(0, "source", sources)
    finally:
        parts.close()


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


def _tasks(places: pa.Table, missing: NDArray[np.int64]) -> Iterator[tuple[str, str, list[Listed]]]:
    """Images of one container at a time, in order: its kind, its name, and some images."""
    for start in range(0, len(missing), _LISTED):
        some = places.take(pa.array(missing[start : start + _LISTED]))
        columns = (
            some.column(name).to_pylist() for name in ("kind", "container", "path", "place", "bytes", "modified")
        )
        task: list[Listed] = []
        where = None
        for kind, name, *item in zip(*columns, strict=True):
            if task and (where != (kind, name) or len(task) == _TASK):
                yield (*where, task)  # type: ignore[misc]
                task = []
            where = kind, path_on_disk(name)
            path, *numbers = item
            task.append(Listed(path_on_disk(path), *numbers))
        if task:
            yield (*where, task)  # type: ignore[misc]
