"""Images by their places in containers, and a data source of some of them."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wildfern.ssl.curation.listing import container
from wildfern.ssl.curation.manifest import path_on_disk
from wildfern.ssl.data.base import UnreadableImage
from wildfern.ssl.data.image_file import Decoding
from wildfern.ssl.data.image_source import ImageSource

PLACE_COLUMNS = ["sha256", "kind", "container", "path", "place", "bytes"]


class Place(NamedTuple):
    """An image in its container; names as on the disk."""

    sha256: str
    kind: str
    container: str
    path: str
    place: int
    size: int

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Place":
        """The place of a row of the manifest, by the columns `PLACE_COLUMNS`."""
        names = path_on_disk(row["container"]), path_on_disk(row["path"])
        return cls(row["sha256"], row["kind"], *names, row["place"], row["bytes"])

    def read(self) -> bytes:
        """The encoded bytes. Raises UnreadableImage, and DataError for a parquet file that is gone or damaged."""
        if self.kind == "folder" and (os.path.isabs(self.path) or ".." in self.path.split("/")):
            raise UnreadableImage("not in its folder, as only the manifest of a stranger says")
        return container(self.kind, self.container).read(self.path, self.place, self.size)

    def read_checked(self) -> bytes:
        """The same; UnreadableImage also if they are not those that were scanned."""
        content = self.read()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise UnreadableImage("changed since the scan")
        return content


def places_of(batches: Iterator[pa.RecordBatch], wanted: NDArray[np.bool_]) -> Iterator[Place]:
    """The places of the images that are wanted, bool[N], from all batches of the manifest with the columns `PLACE_COLUMNS`."""
    start = 0
    for batch in batches:
        chosen = np.flatnonzero(wanted[start : start + batch.num_rows])
        start += batch.num_rows
        if len(chosen):
            rows = batch.take(pa.array(chosen))
            texts = [rows.column(name).cast(pa.string()) for name in PLACE_COLUMNS[:4]]
            columns = [column.to_pylist() for column in (*texts, *map(rows.column, PLACE_COLUMNS[4:]))]
            for digest, kind, name, path, place, size in zip(*columns, strict=True):
                yield Place(digest, kind, path_on_disk(name), path_on_disk(path), place, size)


class PlacedImages(ImageSource):
    """The images at these places, as a source without labels."""

    def __init__(self, places: Sequence[Place], max_side: int | None = None) -> None:
        super().__init__(len(places), decoding=Decoding(max_side))
        self.places = places

    def item_name(self, item: int) -> str:
        return f"{self.places[item].container}/{self.places[item].path}"

    def encoded(self, item: int) -> bytes:
        return self.places[item].read_checked()
