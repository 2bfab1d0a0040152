"""Corrupted test images in the report: accuracy over the severity, and by corruption."""

import re
from collections.abc import Sequence

from wildfern.ssl.evaluation.report.curves import Chart, Line, chart_figure
from wildfern.ssl.evaluation.report.parts import bar, color, dot, escape, section, table
from wildfern.ssl.evaluation.report.series import Series
from wildfern.ssl.evaluation.result import EvaluationResult
from wildfern.ssl.evaluation.run_record import RunRecord
from wildfern.ssl.evaluation.score_words import Row, interval_words, value_words

PROTOCOL = "corruptions"
MOST_TABLES = 20
MOST_CORRUPTIONS = 100
NOT_ONE = ("corrupted", "clean", "balanced")  # NAME_accuracy of which NAME is no corruption
LEAST = 2  # severities of a curve


def corruptions_section(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """For each data set and form of the protocol a curve over the severities, 0 is clean, and bars; of each backbone.

    Those of several runs are without their baselines.
    """
    found: dict[tuple[str, str], dict[str, dict[str, Row]]] = {}
    for index, record in enumerate(records):
        result = EvaluationResult.from_json(record.evaluation)
        rows = [row for row in result.rows if row["protocol"].startswith(PROTOCOL) and row["share"]]
        for row in sorted(rows, key=lambda row: result.is_baseline(row["backbone"])):
            if len(records) > 1 and result.is_baseline(row["backbone"]):
                continue
            name = row["backbone"] if len(records) == 1 else f"{names[index]}: {row['backbone']}"
            of_backbone = found.setdefault((row["dataset"], row["protocol"]), {}).setdefault(name, {})
            of_backbone[row["metric"]] = row
    parts = [_part(dataset, protocol, rows) for (dataset, protocol), rows in list(found.items())[:MOST_TABLES]]
    return section("Corrupted images", "".join(parts))


def _part(dataset: str, protocol: str, rows: dict[str, dict[str, Row]]) -> str:
    lines = []
    places = {name: place for place, name in enumerate(rows)}
    for name, metrics in rows.items():
        points = [(0.0, metrics["clean_accuracy"]["value"])] if "clean_accuracy" in metrics else []
        for metric, row in metrics.items():
            if severity := re.fullmatch(r"severity_(\d{1,2})_accuracy", metric):
                points.append((float(severity[1]), row["value"]))
        points = sorted(point for point in points if 0 <= point[1] <= 1)
        if len(points) >= LEAST:
            lines.append(Line(name, places[name], Series([x for x, _ in points], [y for _, y in points])))
    legend = "".join(f"<span>{dot(places[name])}{escape(name)}</span>" for name in rows)
    heading = f"<h3>{escape(dataset)} · {escape(protocol)}</h3><p class=legend>{legend}</p>"
    chart = chart_figure(Chart("accuracy", lines, x="severity", percent=True))
    return heading + f"<div class=charts>{chart}</div>" * bool(chart) + _bars(rows, places)


def _bars(rows: dict[str, dict[str, Row]], places: dict[str, int]) -> str:
    """A row for each corruption, with a bar for each backbone."""
    kinds: dict[str, None] = {}
    for metrics in rows.values():
        for metric in metrics:
            name = metric.removesuffix("_accuracy")
            if name != metric and name not in NOT_ONE and not name.startswith("severity_"):
                kinds[name] = None
    lines = []
    for kind in list(kinds)[:MOST_CORRUPTIONS]:
        cells = ""
        for name, metrics in rows.items():
            row = metrics.get(f"{kind}_accuracy")
            cells += "<td class=bar></td><td></td>" if row is None else _cell(row, color(places[name]))
        lines.append(f"<tr><th scope=row>{escape(kind.replace('_', ' '))}</th>{cells}</tr>")
    if not lines:
        return ""
    head = ["corruption", *(cell for name in rows for cell in ("", f"{dot(places[name])}{escape(name)}"))]
    return table(head, lines, caption="Accuracy by corruption")


def _cell(row: Row, fill: str) -> str:
    return (
        f"<td class=bar>{bar(row['value'], row['low'], row['high'], fill)}</td>"
        f"<td class=share>{value_words(row)}<small>{interval_words(row)}</small></td>"
    )
