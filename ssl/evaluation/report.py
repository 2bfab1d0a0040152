"""One self-contained HTML page that compares runs: curves, scores, speed, views, machine and recipe."""

import base64
import os
import statistics
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from wildfern.bounded_yaml import MOST_BYTES as MOST_YAML
from wildfern.files import write_text
from wildfern.ssl.evaluation.comparison import Comparison, compare_runs
from wildfern.ssl.evaluation.comparison_section import comparison_sections
from wildfern.ssl.evaluation.curves import line_chart
from wildfern.ssl.evaluation.report_parts import MOST_CHARACTERS, escape, section, table
from wildfern.ssl.evaluation.report_style import STYLE
from wildfern.ssl.evaluation.result import EvaluationResult
from wildfern.ssl.evaluation.run_record import RunRecord, Series, read_run
from wildfern.ssl.evaluation.score_words import Row, interval_words, metric_words, short_name, value_words

# Keys with their own section; all others become small plots.
MAIN = ("loss", "learning_rate")

# Of what a run folder holds, which may come from a stranger.
MOST_CHARTS = 100  # small ones, of a section
MOST_ROWS = 300  # of the table of machines
MOST_NOTES = 1_000


def write_report(runs: Sequence[RunRecord | Path | str], out: Path | str, comparison: Comparison | None = None) -> Path:
    """Write the `report_page` of one or more run folders to `out`, as a whole, and return its path.

    A link at `out` is followed, but replaced in the folder of one of the runs. Raises ValueError for a folder without a run, and
    if there are no runs; OSError if the file cannot be written.
    """
    page, out = report_page(runs, comparison), Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    folders = [run.folder if isinstance(run, RunRecord) else Path(run) for run in runs]
    within = any(folder.samefile(out.parent) for folder in folders if folder.exists())
    write_text(out if within else os.path.realpath(out), page)
    return out


def report_page(runs: Sequence[RunRecord | Path | str], comparison: Comparison | None = None) -> str:
    """The page, self-contained: images, charts and style are in it. It names what a folder lacks.

    On top of several runs is their comparison, grouped by seed, or the one given.

    Raises ValueError for a folder without a run, and if there are no runs.
    """
    records = [run if isinstance(run, RunRecord) else read_run(run) for run in runs]
    if not records:
        raise ValueError("a report needs at least one run folder")
    names = record_names(records)
    if comparison is None and len(records) > 1:
        comparison = compare_runs(records, names)
    title = records[0].title if len(records) == 1 else f"{len(records)} runs compared"
    lead = names[0] if len(records) == 1 else " · ".join(dict.fromkeys(record.title for record in records))
    body = [
        f"<header><p class=kicker>wildfern report</p><h1>{escape(title)}</h1><p class=lead>{escape(lead)}</p></header>",
        comparison_sections(comparison) if comparison is not None else "",
        _overview(records, names),
        _data(records, names),
        _scores(records, names),
        _curves(records, names),
        _speed(records),
        _views(records, names),
        _machines(records, names),
        _recipes(records, names),
    ]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} – wildfern</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def record_names(records: Sequence[RunRecord]) -> list[str]:
    """Folder names, with the parent's name if two are equal."""
    plain = [record.name for record in records]
    return [
        f"{record.folder.resolve().parent.name}/{name}" if plain.count(name) > 1 else name
        for record, name in zip(records, plain, strict=True)
    ]


def _run(names: Sequence[str], index: int) -> str:
    """A run's name, after a dot in its color in the charts."""
    return f'<span class=dot style="background: var(--run-{index % 8 + 1})"></span>{escape(names[index])}'


def _last(series: Series | None) -> str:
    return "–" if series is None else f"{series.values[-1]:.4g}"


def _median(series: Series | None, pattern: str) -> str:
    return "–" if series is None else pattern.format(statistics.median(series.values))


def _overview(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    rows = []
    for index, record in enumerate(records):
        steps = [one.steps[-1] for one in record.metrics.values()]
        cells = (
            f"{max(steps) + 1:,.0f}" if steps else "–",
            _last(record.metrics.get("loss")),
            _median(record.timings.get("images_per_second"), "{:,.0f}"),
            _median(record.timings.get("data_wait"), "{:.1%}"),
        )
        figures = "".join(f"<td class=num>{cell}</td>" for cell in cells)
        rows.append(f"<tr><td class=run>{_run(names, index)}</td><td>{escape(record.title)}</td>{figures}</tr>")
    head = ("run", "recipe", "steps", "last loss", "images/s (median)", "data wait (median)")
    remarks = "".join(
        f"<li>{_run(names, index)}: {escape('; '.join(record.remarks))}</li>"
        for index, record in enumerate(records)
        if record.remarks
    )
    missing = f"<div class=note><p>Missing or left out:</p><ul>{remarks}</ul></div>" if remarks else ""
    return section("Overview", table(head, rows, numbers=4) + missing)


def _data(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """The sources of mixtures with their shares, and files that could not be used; empty where there is neither."""
    parts = []
    for index, record in enumerate(records):
        sources = record.sources if len(record.sources) > 1 else []
        rows = [
            f"<tr><td>{escape(source)}</td><td class=num>{'–' if share is None else f'{share:.1%}'}</td></tr>"
            for source, share in sources
        ]
        content = table(("source", "share of the images"), rows, numbers=1) if rows else ""
        if count := record.skipped.count:
            files = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in record.skipped.first)
            more = f"<li>… and {count - len(record.skipped.first):,} more, in skipped.jsonl</li>"
            said = f"{count:,} file{' was' if count == 1 else 's were'} skipped, because they could not be used:"
            said = said.replace("they", "it") if count == 1 else said
            content += (
                f"<div class=note><p>{said}</p><ul>{files}{more * (count > len(record.skipped.first))}</ul></div>"
            )
        if content:
            parts.append(f"<p class=legend><span>{_run(names, index)}</span></p>" * (len(records) > 1) + content)
    return section("Training images", "".join(parts))


def _scores(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """Rows by data set, protocol and metric, each run's baseline first; differences are to that run's own baseline."""
    groups: dict[tuple[str, str, str], list[tuple[int, Row, float | None]]] = {}
    words: dict[str, str] = {}
    images: dict[str, dict[str, None]] = {}
    notes: dict[str, None] = {}
    for index, record in enumerate(records):
        result = EvaluationResult.from_json(record.evaluation)
        words |= result.protocols
        for dataset in dict.fromkeys(row["dataset"] for row in result.rows):
            images.setdefault(dataset, {}).update(dict.fromkeys(result.images_words(dataset)))
            notes |= {f"{dataset}: {note}": None for note in result.notes.get(dataset, [])}
        for row in result.rows:
            if row.get("breakdown"):
                continue
            group = (row["dataset"], row["protocol"], row["metric"])
            groups.setdefault(group, []).append((index, row, result.difference(row)))
    if not groups:
        return ""
    # A metric that only a later run has also follows those of its protocol, and a protocol those of its data set.
    order = {dataset: place for place, dataset in enumerate(dict.fromkeys(group[0] for group in groups))}
    protocols = sorted(dict.fromkeys(group[:2] for group in groups), key=lambda pair: order[pair[0]])
    several = ("run",) * (len(records) > 1)
    head = ("protocol", "metric", *several, "backbone", "", "value", "interval", "difference")
    lines = []
    last = None
    members: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for group in groups:
        members.setdefault(group[:2], []).append(group)
    for dataset, protocol in protocols:
        if dataset != last:
            said = "".join(f"<small>{escape(line)}</small>" for line in images[dataset])
            lines.append(f"<tr class=dataset><th colspan={len(head)}>{escape(dataset)}{said}</th></tr>")
            last = dataset
        metrics = members[dataset, protocol]
        span = sum(len(groups[group]) for group in metrics)
        for number, group in enumerate(metrics):
            for place, member in enumerate(groups[group]):
                first = ""
                if number == place == 0:
                    first = f"<td rowspan={span}>{escape(short_name(protocol))}</td>"
                if place == 0:
                    first += f"<td class=metric rowspan={len(groups[group])}>{escape(metric_words(group[2]))}</td>"
                lines.append(_score(*member, names, first, place == 0, number > 0))
    said = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in words.items())
    note = (
        "<p class=legend>Differences to the baseline of the same run are in percentage points. Intervals are at 95 %: over test "
        "images, or over the draws of few labels. Point at a bar for details.</p>"
    )
    legend = f"<dl class=words>{said}</dl>" if said else ""
    remarks = "".join(f"<li>{escape(text)}</li>" for text in islice(notes, MOST_NOTES))
    about = f"<div class=note><p>About the data sets:</p><ul>{remarks}</ul></div>" if remarks else ""
    return section("Scores on test", table(head, lines, numbers=3) + about + note + legend)


def _score(
    index: int, row: Row, difference: float | None, names: Sequence[str], cells: str, first: bool, secondary: bool
) -> str:
    """One row of the table of scores, after the `cells` that it shares with others."""
    kinds = "first " * first + "baseline " * (difference is None) + "secondary" * secondary
    color = f"var(--run-{index % 8 + 1})"
    bar = ""
    if row["share"]:
        bar = f'<i style="width: {100 * min(max(0, row["value"]), 1):.1f}%; background: {color}"></i>'
        if row["low"] is not None and row["high"] is not None:
            low, high = (min(max(0, bound), 1) for bound in (row["low"], row["high"]))
            bar += f'<b style="left: {100 * low:.1f}%; width: {100 * (high - low):.1f}%"></b>'
    shown = "baseline"
    if difference is not None:
        shown = f"{difference:+.1f}" if row["share"] else f"{difference:+.4g}"
    sign = "" if not difference else "up" if difference > 0 else "down"
    run = f"<td class=run>{_run(names, index)}</td>" if len(names) > 1 else ""
    images = "" if row["n"] is None else f"{row['n']} test images"
    title = "; ".join(text for text in (images, str(row.get("detail") or "")) if text)
    return (
        f'<tr class="{kinds}">{cells}{run}<td>{escape(row["backbone"])}</td>'
        f'<td class=bar title="{escape(title)}"><span>{bar}</span></td><td class=num>{value_words(row)}</td>'
        f'<td class=num>{interval_words(row)}</td><td class="num {sign}">{shown}</td></tr>'
    )


def _chart(records: Sequence[RunRecord], kind: str, key: str, heading: str, **style) -> str:
    series = [getattr(record, kind).get(key) for record in records]
    if not any(series):
        return ""
    return f"<figure><figcaption>{escape(heading)}</figcaption>{line_chart(series, escape(heading), **style)}</figure>"


def _keys(records: Sequence[RunRecord], kind: str, known: Sequence[str]) -> list[str]:
    """The first other keys that any run has, in order of appearance."""
    keys = dict.fromkeys(key for record in records for key in getattr(record, kind))
    return list(islice((key for key in keys if key not in known), MOST_CHARTS))


def _curves(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    large = _chart(records, "metrics", "loss", "loss", smooth=True)
    large += _chart(records, "metrics", "learning_rate", "learning rate")
    small = "".join(
        _chart(records, "metrics", key, key.replace("_", " "), width=3.4, height=2.0, smooth=True)
        for key in _keys(records, "metrics", MAIN)
    )
    content = f"<div class=charts>{large}</div>" * bool(large) + f"<div class='charts small'>{small}</div>" * bool(
        small
    )
    runs = "".join(f"<span>{_run(names, index)}</span>" for index in range(len(names)))
    legend = f"<p class=legend>{runs}</p>" if len(names) > 1 else ""
    return section("Training", legend + content if content else "")


def _speed(records: Sequence[RunRecord]) -> str:
    charts = _chart(records, "timings", "images_per_second", "images per second", smooth=True)
    charts += _chart(
        records, "timings", "data_wait", "share of a step spent waiting for data", smooth=True, percent=True
    )
    small = "".join(
        _chart(records, "timings", key, key.replace("_", " "), width=3.4, height=2.0)
        for key in _keys(records, "timings", ("images_per_second", "data_wait"))
    )
    content = f"<div class=charts>{charts}</div>" * bool(charts) + f"<div class='charts small'>{small}</div>" * bool(
        small
    )
    return section("Speed", content)


def _views(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    figures = "".join(
        f"<figure><figcaption>{_run(names, index)}</figcaption><img alt='views of training images' "
        f"src='data:image/png;base64,{base64.b64encode(record.views_png).decode()}'></figure>"
        for index, record in enumerate(records)
        if record.views_png
    )
    return section("Views", f"<div class=views>{figures}</div>" if figures else "")


def _flat(tree: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as ("gpu.name", "…")."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}."[:MOST_CHARACTERS])
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value[:MOST_CHARACTERS]))
        else:
            yield f"{prefix}{name}", str(value)


def _machines(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    environments = [{name: value for name, value in record.environment.items() if name != "run"} for record in records]
    flats = [dict(islice(_flat(found), MOST_ROWS)) for found in environments]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    if not keys:
        return ""
    rows = []
    for key in keys:
        values = [flat.get(key, "–") for flat in flats]
        mark = " class=differs" * (len(set(values)) > 1)
        rows.append(f"<tr{mark}><th>{escape(key)}</th>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>")
    cut = any(len(flat) == MOST_ROWS for flat in flats)
    note = f"<p class=legend>The first {MOST_ROWS} values of a run are shown.</p>" * cut
    return section("Machine", table(("", *(_run(names, index) for index in range(len(records)))), rows) + note)


def _recipes(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    return section(
        "Recipe, as resolved",
        "".join(
            f"<details><summary>{_run(names, index)}</summary><pre>{escape(record.recipe_text, MOST_YAML)}</pre></details>"
            for index, record in enumerate(records)
            if record.recipe_text
        ),
    )
