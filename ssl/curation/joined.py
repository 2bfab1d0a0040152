"""Author, license and the rest: what the user's metadata says of an image, else what the file itself says."""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wildfern.bounded_json import parse_json
from wildfern.ssl.curation.manifest import JOINED, CurationError, path_on_disk
from wildfern.ssl.curation.user_metadata import UserMetadata

_PLAIN = ("author", "credit", "rights", "source_url", "date", "camera", "optout")


def join(rows: pa.Table, metadata: Sequence[UserMetadata]) -> pa.Table:
    """Measured rows with the columns `JOINED`. The first of `metadata` that knows an image tells.

    It knows it by the full path, by the name of the source's folder and the path below it, or by this path alone, if no other
    image has that row. Raises CurationError for a row that fits several images, such as a.jpg where two folders have one.
    """
    containers, kinds, paths, embedded = (
        rows.column(name).to_pylist() for name in ("container", "kind", "path", "embedded")
    )
    places = list(zip(map(path_on_disk, containers), map(path_on_disk, paths), strict=True))
    own = [_found(metadata, *place) for place in places]
    for n, (_, path) in enumerate(places):
        if own[n] is None:
            with suppress(CurationError):  # it is the row of another image, whose full path it fits
                own[n] = _first(metadata, path)
    joined = [_joined(*row) for row in zip(containers, kinds, paths, embedded, [one or {} for one in own], strict=True)]
    tagged = pa.array([row["has_gps"] for row in joined], pa.bool_())
    place = rows.schema.get_field_index("has_gps")
    rows = rows.set_column(place, rows.schema.field(place), pc.or_kleene(rows.column(place), tagged).cast(pa.bool_()))
    for column in JOINED:
        rows = rows.append_column(column, pa.array([row.get(column.name) for row in joined], column.type))
    return rows


def _found(metadata: Sequence[UserMetadata], container: str, path: str) -> dict[str, Any] | None:
    """Several sources may have the same path: what is found surely."""
    found = _first(metadata, f"{container}/{path}")
    return _first(metadata, f"{os.path.basename(container)}/{path}") if found is None else found


def _first(metadata: Sequence[UserMetadata], name: str) -> dict[str, Any] | None:
    return next((found for one in metadata if (found := one.find(name)) is not None), None)


def _joined(container: str, kind: str, path: str, embedded: str | None, own: dict[str, Any]) -> dict[str, Any]:
    inside: dict[str, Any] = parse_json(embedded) if embedded else {}
    row: dict[str, Any] = {column: own.get(column) or inside.get(column) for column in _PLAIN}
    rights = own if own.get("license_text") else inside
    row |= {name: rights.get(name) for name in ("license", "license_text", "license_from")}
    if rights is own and inside.get("license") not in (None, own.get("license")):
        row["license_text"] += f"; the file says {inside['license']}"
    row["has_gps"] = bool(own.get("has_gps"))
    folder = os.path.dirname(path) if kind == "folder" else os.path.basename(container)
    row["album"] = own.get("album") or folder or None
    row["metadata"] = own.get("metadata")
    return row
