"""The training images in the report: sources with their shares, numbers and licenses, views, and files that were skipped."""

import base64
from collections.abc import Sequence
from typing import Any

from wildfern.ssl.evaluation.report.parts import escape, percent, run_name, section, table
from wildfern.ssl.evaluation.run_record import RunRecord

MOST_LICENSES = 20


def data_section(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """The sources of each run as far as they are recorded, and the files that could not be used."""
    parts = []
    for index, record in enumerate(records):
        if content := _sources(record) + _skipped(record):
            parts.append(f"<p class=legend><span>{run_name(names, index)}</span></p>" * (len(records) > 1) + content)
    return section("Training images", "".join(parts))


def views_section(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """Images of each run with their views."""
    figures = []
    for index, record in enumerate(records):
        if record.views_png:
            caption = f"<figcaption>{run_name(names, index)}</figcaption>" * (len(records) > 1)
            uri = f"data:image/png;base64,{base64.b64encode(record.views_png).decode()}"
            figures.append(f'<figure>{caption}<img alt="training images with their views" src="{uri}"></figure>')
    return section("Views", f"<div class=views>{''.join(figures)}</div>" if figures else "")


def _sources(record: RunRecord) -> str:
    several, recorded = len(record.sources) > 1, bool(record.data)
    if not several and not recorded:
        return ""
    rows = []
    for number, (source, share) in enumerate(record.sources):
        found = record.data[number] if number < len(record.data) else {"files": None}
        cells = ["–" if share is None else percent(share)] * several
        cells += [_count(found), _licenses(found)] * recorded
        figures = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f"<tr><th scope=row>{escape(source)}</th>{figures}</tr>")
    head = ["source", *["share of the images"] * several, *["images", "licenses"] * recorded]
    return table(head, rows, caption="Sources of the training images") if rows else ""


def _count(found: dict[str, Any]) -> str:
    """How many images a source has, by its record."""
    items = found.get("items")
    if items is None and "files" not in found:
        return "rendered while training"
    return f"{items:,}" if type(items) is int else "unknown"


def _licenses(found: dict[str, Any]) -> str:
    """The licenses with their numbers of images, which curated folders record."""
    curated = found.get("curated")
    licenses = curated.get("licenses") if isinstance(curated, dict) else None
    if not isinstance(licenses, dict) or not licenses:
        return "none (rendered)" if found.get("items") is None and "files" not in found else "unknown"
    words = [f"{name} ({count})" for name, count in list(licenses.items())[:MOST_LICENSES]]
    return ", ".join(words + ["…"] * (len(licenses) > MOST_LICENSES))


def _skipped(record: RunRecord) -> str:
    count = record.skipped.count
    if not count:
        return ""
    files = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in record.skipped.first)
    more = f"<li>… and {count - len(record.skipped.first):,} more, in skipped.jsonl</li>"
    said = f"{count:,} file{' was' if count == 1 else 's were'} skipped, because they could not be used:"
    said = said.replace("they", "it") if count == 1 else said
    return f"<div class=note><p>{said}</p><ul>{files}{more * (count > len(record.skipped.first))}</ul></div>"
