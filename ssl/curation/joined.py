"""Author, license and the rest: what the user's metadata says of an image, else what the file itself says."""

import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wildfern.bounded_json import parse_json
from wildfern.ssl.curation.manifest import JOINED, path_on_disk
from wildfern.ssl.curation.user_metadata import UserMetadata

_PLAIN = ("author", "credit", "rights", "source_url", "date", "camera", "optout")


def join(rows: pa.Table, metadata: Sequence[UserMetadata]) -> pa.Table:
    """Measured rows with the columns `JOINED`. The first of `metadata` that knows the path of an image tells."""
    containers, kinds, paths, embedded = (
        rows.column(name).to_pylist() for name in ("container", "kind", "path", "embedded")
    )
    joined = [_joined(*row, metadata) for row in zip(containers, kinds, paths, embedded, strict=True)]
    tagged = pa.array([row.pop("has_gps", False) for row in joined])
    place = rows.schema.get_field_index("has_gps")
    rows = rows.set_column(place, rows.schema.field(place), pc.or_kleene(rows.column(place), tagged).cast(pa.bool_()))
    for column in JOINED:
        rows = rows.append_column(column, pa.array([row.get(column.name) for row in joined], column.type))
    return rows


def _joined(
    container: str, kind: str, path: str, embedded: str | None, metadata: Sequence[UserMetadata]
) -> dict[str, Any]:
    inside: dict[str, Any] = parse_json(embedded) if embedded else {}
    name = path_on_disk(path)
    own = next((found for one in metadata if (found := one.find(name)) is not None), {})
    row = {column: own.get(column) or inside.get(column) for column in _PLAIN}
    rights = own if own.get("license_text") else inside
    row |= {name: rights.get(name) for name in ("license", "license_text", "license_from")}
    if rights is own and inside.get("license") not in (None, own.get("license")):
        row["license_text"] += f"; the file says {inside['license']}"
    row["has_gps"] = bool(own.get("has_gps"))
    folder = os.path.dirname(path) if kind == "folder" else os.path.basename(container)
    row["album"] = own.get("album") or folder or None
    row["metadata"] = own.get("metadata")
    return row
