"""People in images: a detector runs over what passed so far, by any number of processes, and results are kept at once."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wildfern.files import replacing
from wildfern.ssl.curation.detector import Detector, detect_everywhere
from wildfern.ssl.curation.measured_parts import PARTS
from wildfern.ssl.curation.places import Place
from wildfern.ssl.curation.row_check import check_rows
from wildfern.ssl.curation.workers import workers
from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.tracking.current_progress import current_progress

_SCHEMA = pa.schema(
    [("sha256", pa.string()), ("people", pa.float32()), ("people_boxes", pa.string()), ("people_checked", pa.string())]
)
_TASK, _SECONDS, _FEW = 8, 20.0, 50


class Found(NamedTuple):
    """The highest score in an image, 0 for none, and all boxes as JSON."""

    score: float
    boxes: str


class PeopleResults:
    """What the detector with this description found, by SHA-256: in the manifest at `known`, and in parts in `folder`/scan."""

    def __init__(self, folder: Path, description: str, known: Sequence[Path] = ()) -> None:
        self._folder, self.description = folder / PARTS, description
        self._folder.mkdir(parents=True, exist_ok=True)
        self.found: dict[str, Found] = {}
        parts = sorted(self._folder.glob(f"people-{6 * '[0-9]'}.parquet"))
        self._number = max((int(path.stem.removeprefix("people-")) for path in parts), default=-1) + 1
        for path in [*known, *parts]:
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(columns=_SCHEMA.names):
                        check_rows(batch)
                        self._take(batch)
            except (OSError, ValueError, pa.ArrowException, KeyError):  # none yet, or damaged: examined again
                continue

    def _take(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            if row["people_checked"] == self.description and row["people"] is not None:
                self.found[row["sha256"]] = Found(row["people"], row["people_boxes"] or "[]")

    def examine(self, places: Iterator[Place], total: int, detector: Detector, processes: int = 1) -> None:
        """Run the detector over these images, each content once; those that cannot be read or have changed are left out."""
        progress, done, written = current_progress(), 0, time.monotonic()
        new: list[dict[str, object]] = []
        waiting = self._not_examined(places)
        tasks = iter(lambda: list(islice(waiting, _TASK)), [])
        with workers(min(processes, 1 + total // _FEW)) as run:
            try:
                for results in run(_examined, ((detector, task) for task in tasks)):
                    for digest, found in results:
                        self.found[digest] = found
                        new.append(
                            {
                                "sha256": digest,
                                "people": found.score,
                                "people_boxes": found.boxes,
                                "people_checked": self.description,
                            }
                        )
                    done += _TASK
                    progress.count(min(done, total), total, "images", f"looking for {detector.detects}")
                    if time.monotonic() - written > _SECONDS:
                        new, written = self._write(new), time.monotonic()
            finally:
                self._write(new)
        progress.detail("")

    def columns(self, digests: Sequence[str | None]) -> dict[str, pa.Array]:
        """The columns of the manifest for images with these SHA-256."""
        found = [self.found.get(digest or "") for digest in digests]
        return {
            "people": pa.array([None if one is None else one.score for one in found], pa.float32()),
            "people_boxes": pa.array(
                [None if one is None or one.boxes == "[]" else one.boxes for one in found], pa.string()
            ),
            "people_checked": pa.array([None if one is None else self.description for one in found], pa.string()),
        }

    def scores(self, digests: Sequence[str | None]) -> NDArray[np.float64]:
        """float64[N], NaN where an image was not examined."""
        return np.array(
            [one.score if (one := self.found.get(digest or "")) else np.nan for digest in digests], np.float64
        )

    def _not_examined(self, places: Iterable[Place]) -> Iterator[Place]:
        seen = set(self.found)
        for place in places:
            if place.sha256 not in seen:
                seen.add(place.sha256)
                yield place

    def _write(self, rows: list[dict[str, object]]) -> list[dict[str, object]]:
        if rows:
            with replacing(self._folder / f"people-{self._number:06d}.parquet") as path:
                pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), path, compression="zstd")
            self._number += 1
        return []


def _examined(detector: Detector, places: list[Place]) -> list[tuple[str, Found]]:
    results = []
    for one in places:
        try:
            pixels = Decoding().decode(one.read_checked())
        except DataError:
            continue
        boxes = [[round(float(value), 4) for value in box] for box in detect_everywhere(detector, pixels)]
        results.append((one.sha256, Found(max((box[4] for box in boxes), default=0.0), json.dumps(boxes))))
    return results
