"""The table of scores in the report: a row for each data set, protocol, run and backbone, with its gain over the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from wildfern.ssl.evaluation.report.parts import bar, color, escape, folded, run_name, section, table
from wildfern.ssl.evaluation.result import EvaluationResult
from wildfern.ssl.evaluation.run_record import RunRecord
from wildfern.ssl.evaluation.score_words import (
    Row,
    difference_interval_words,
    interval_words,
    metric_words,
    short_name,
    value_words,
)

MOST_SCORES = 1_000  # rows of the table
MOST_METRICS = 100  # of a row
MOST_NOTES = 1_000

# Parts of names of metrics of which less is better, and of those of which neither is.
LESS = ("error", "likelihood", "brier", "accuracy_std", "gap", "loss", "false_positive")
NEITHER = ("estimated_classes", "alignment", "uniformity", "feature_std", "embedding_std", "rank")
LEGEND = (
    "<p class=note-line>Ranges are 95 % intervals: of a value over test images, or over the draws of few labels; of a "
    "gain over the same test images, or the same draws, for both backbones, where it is known. A gain is in "
    "percentage points for values in percent; it is green where the backbone is better than its baseline and red "
    "where it is worse, unless the interval contains 0.</p>"
)


@dataclass(frozen=True)
class _Entry:
    """The rows of a run for one data set, protocol and backbone, the main metric first, and of each that of its baseline."""

    run: int
    result: EvaluationResult
    rows: list[Row]

    @property
    def baselines(self) -> list[Row | None]:
        return [None if self.is_baseline else self.result.baseline_row(row) for row in self.rows]

    @property
    def is_baseline(self) -> bool:
        return self.result.is_baseline(self.rows[0]["backbone"])


def scores_section(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """The section, as HTML: with filters and sorting by a script, secondary metrics folded away."""
    results = [EvaluationResult.from_json(record.evaluation) for record in records]
    entries = _entries(results)
    if not entries:
        return ""
    columns = ["data set", "protocol", "run" if len(records) > 1 else "backbone"]
    head = "".join(f"<th scope=col data-sort>{name}</th>" for name in columns)
    head += "<th class=bar></th>" + "".join(
        f"<th scope=col class=num data-sort>{name}</th>" for name in ("value", "test images", "baseline", "gain")
    )
    bodies = [_body(entry, names, len(columns) + 5) for entry in entries[:MOST_SCORES]]
    more = f"<p class=note-line>The first {MOST_SCORES:,} of {len(entries):,} rows are shown.</p>"
    content = (
        "<div class=scroll><table class=scores><caption class=unseen>Scores on test images, by data set, protocol and backbone"
        f"</caption><thead><tr>{head}</tr></thead>{''.join(bodies)}</table></div>"
    )
    return section(
        "Scores on test", content + more * (len(entries) > MOST_SCORES) + _about(results) + LEGEND + _protocols(results)
    )


def _entries(results: Sequence[EvaluationResult]) -> list[_Entry]:
    """Ordered by data set and protocol, in order of appearance; a baseline only where nothing is compared with it."""
    found: dict[tuple[str, str], dict[tuple[int, str], _Entry]] = {}
    for run, result in enumerate(results):
        for row in result.rows:
            of_protocol = found.setdefault((row["dataset"], row["protocol"]), {})
            of_protocol.setdefault((run, row["backbone"]), _Entry(run, result, [])).rows.append(row)
    datasets = {dataset: place for place, dataset in enumerate(dict.fromkeys(dataset for dataset, _ in found))}
    entries = []
    for key in sorted(found, key=lambda key: datasets[key[0]]):
        of_protocol = found[key]
        used = {
            (run, entry.result.baseline_of(backbone))
            for (run, backbone), entry in of_protocol.items()
            if not entry.is_baseline
        }
        entries += [entry for name, entry in of_protocol.items() if name not in used or not entry.is_baseline]
    return entries


def main_entry(result: EvaluationResult, backbone: str) -> tuple[Row, Row | None] | None:
    """The first main row of a backbone, and that of its baseline; None without."""
    for entry in _entries([result]):
        if entry.rows[0]["backbone"] == backbone:
            return entry.rows[0], entry.baselines[0]
    return None


def _body(entry: _Entry, names: Sequence[str], width: int) -> str:
    row, baseline = entry.rows[0], entry.baselines[0]
    dataset, protocol = escape(row["dataset"]), escape(short_name(row["protocol"]))
    backbone = escape(row["backbone"])
    if len(names) > 1:
        backbone = f"<div class=named>{run_name(names, entry.run)}</div><small>{backbone}</small>"
    drawn = bar(row["value"], row["low"], row["high"], color(entry.run)) if row["share"] else ""
    gain = entry.result.difference(row)
    own = "<i class=own>baseline</i>" if entry.is_baseline else ""
    n = "" if row["n"] is None else f"{row['n']:,}"
    return (
        f'<tbody data-dataset="{dataset}" data-protocol="{protocol}"><tr>'
        f"<td class=dataset>{dataset}</td><td class=protocol>{protocol}<small>{escape(metric_words(row['metric']))}</small></td>"
        f"<td class=backbone>{backbone}</td><td class=bar>{drawn}</td>"
        f'<td class="num value"{_sorts(row["value"])}><b>{value_words(row)}</b>{_small(interval_words(row))}</td>'
        f'<td class="num n"{_sorts(row["n"])}>{n}</td>'
        f'<td class="num base"{_sorts(baseline and baseline["value"])}>{_baseline(baseline)}</td>'
        f'<td class="num gain"{_sorts(gain)}>{own or _gain(row, gain)}</td></tr>'
        f"<tr class=more><td colspan={width}>{_metrics(entry)}</td></tr></tbody>"
    )


def _sorts(value: float | None) -> str:
    return "" if value is None else f' data-value="{value:.9g}"'


def _small(words: str) -> str:
    return f"<small>{words}</small>" * bool(words)


def _baseline(row: Row | None) -> str:
    return "" if row is None else f"{value_words(row)}<small>{escape(row['backbone'])}</small>"


def _gain(row: Row, gain: float | None) -> str:
    """The difference with its interval, colored unless this contains 0."""
    if gain is None:
        return ""
    low, high = row.get("difference_low"), row.get("difference_high")
    known = isinstance(low, int | float) and isinstance(high, int | float)
    unclear = known and low <= 0 <= high  # type: ignore[operator]
    sign = ""
    if gain and not unclear and not any(part in row["metric"] for part in NEITHER):
        less = any(part in row["metric"] for part in LESS)
        sign = " class=up title=better" if (gain > 0) != less else " class=down title=worse"
    said = f"{gain:+.1f}" if row["share"] else f"{gain:+.4g}"
    return f"<b{sign}>{said}</b>" + _small(difference_interval_words(row) if known else "")


def _metrics(entry: _Entry) -> str:
    """All metrics of a row, folded away, with how their intervals were computed."""
    rows = []
    for row, baseline in islice(zip(entry.rows, entry.baselines, strict=True), MOST_METRICS):
        images = "" if row["n"] is None else f"{row['n']} test images"
        detail = "; ".join(text for text in (images, str(row.get("detail") or "")) if text)
        rows.append(
            f"<tr><th scope=row>{escape(metric_words(row['metric']))}<small>{escape(detail)}</small></th>"
            f"<td class=num>{value_words(row)}{_small(interval_words(row))}</td><td class=num>{_baseline(baseline)}</td>"
            f"<td class=num>{_gain(row, entry.result.difference(row))}</td></tr>"
        )
    count = len(entry.rows) - 1
    summary = f"{count} more metric{'s' * (count > 1)}" if count else "how the interval was computed"
    return folded(summary, table(("metric", "value", "baseline", "gain"), rows, numbers=3))


def _about(results: Sequence[EvaluationResult]) -> str:
    """Which images the data sets have, and notes about them."""
    images: dict[str, dict[str, None]] = {}
    for result in results:
        for dataset in dict.fromkeys(row["dataset"] for row in result.rows):
            found = images.setdefault(dataset, {})
            found |= dict.fromkeys(result.images_words(dataset)) | dict.fromkeys(result.notes.get(dataset, []))
    lines = (f"{dataset}: {text}" for dataset, texts in images.items() for text in texts)
    said = "".join(f"<li>{escape(line)}</li>" for line in islice(lines, MOST_NOTES))
    return f"<div class=note><p>About the data sets:</p><ul>{said}</ul></div>" if said else ""


def _protocols(results: Sequence[EvaluationResult]) -> str:
    words: dict[str, str] = {}
    for result in results:
        words |= result.protocols
    said = "".join(f"<dt>{escape(short_name(name))}</dt><dd>{escape(text)}</dd>" for name, text in words.items())
    return f"<dl class=words>{said}</dl>" if said else ""
