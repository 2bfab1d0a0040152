"""What is written beside a manifest: the review page, a datasheet, Croissant metadata, attributions and rejections."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wildfern.files import read_bytes, write_text
from wildfern.ssl.curation.attribution import UNCHANGED, write_attribution, write_rejected
from wildfern.ssl.curation.blur_boxes import Blurring
from wildfern.ssl.curation.croissant import croissant
from wildfern.ssl.curation.curate import Curated
from wildfern.ssl.curation.datasheet import Summary, datasheet
from wildfern.ssl.curation.datasheet_answers import answers_in, with_answers
from wildfern.ssl.curation.manifest import KEEP, Manifest
from wildfern.ssl.curation.review import write_review

_ATTRIBUTED = [
    *("path", "sha256", "author", "license", "license_text", "rights", "source_url", "date", "credit", "metadata"),
    *("decision", "people_boxes"),
]
_BLURRED = "faces or persons blurred while training"
_LONGEST = 2**24  # bytes of a datasheet
_REJECTED = ["path", "sha256", "decision", "reasons"]


def write_documents(folder: str | Path, found: Curated, date: str) -> list[Path]:
    """Write review.html, datasheet.md, croissant.json, attribution.csv and rejected.csv, as of `date` (ISO 8601); their paths.

    Answers that were written by hand into datasheet.md stay.
    """
    folder, manifest = Path(folder), found.manifest
    summary = Summary.of(manifest, date)
    sheet = folder / "datasheet.md"
    written = read_bytes(sheet, _LONGEST).decode(errors="replace") if sheet.is_file() else ""
    write_text(sheet, with_answers(datasheet(summary), answers_in(written)))
    write_text(folder / "croissant.json", json.dumps(croissant(summary), indent=2, ensure_ascii=False) + "\n")
    blurring = Blurring.of_policy(manifest.info.policy)
    write_attribution(
        folder / "attribution.csv",
        (
            row | {"changes": _BLURRED if blurring.boxes(row["people_boxes"]) else UNCHANGED}
            for row in _rows(manifest, _ATTRIBUTED)
            if row["decision"] == KEEP
        ),
    )
    write_rejected(folder / "rejected.csv", (row for row in _rows(manifest, _REJECTED) if row["decision"] != KEEP))
    page = write_review(folder, manifest, found.decided)
    return [page, *(folder / name for name in ("datasheet.md", "croissant.json", "attribution.csv", "rejected.csv"))]


def _rows(manifest: Manifest, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in manifest.batches(columns):
        yield from batch.to_pylist()
