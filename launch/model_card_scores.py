"""The scores of a model card: a row for the main metric of each data set, protocol and backbone, and what they are of."""

import re
from collections.abc import Iterator
from dataclasses import replace

from wildfern.launch.markdown import plain
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.evaluation.result import GROUP, EvaluationResult
from wildfern.ssl.evaluation.score_words import (
    Row,
    difference_interval_words,
    interval_words,
    metric_words,
    short_name,
    value_words,
)
from wildfern.ssl.evaluation.stored_result import EVALUATION, read_evaluation

BACKBONES = {
    "pretrained": "the exported weights",
    "random": "the same network with random weights",
    "start": "the weights that training started from",
}
MOST_ROWS = 60
MOST_WORDS = 20  # protocols, data sets, and lines about each of these
COLUMNS = (
    *("data set", "protocol", "backbone", "metric", "value (95 %)", "n", "baseline", "difference (95 %)"),
    "worst class or group (95 %)",
)


def score_lines(folder: RunFolder, sha256: str) -> Iterator[str]:
    """What `evaluation.json` says of the weights `sha256`, in Markdown."""
    stored, faults = read_evaluation(folder.path)
    for fault in faults:
        yield f"`{EVALUATION}` of the run: {plain(fault)}"
        yield ""
    result = EvaluationResult.from_json(stored)
    result = replace(result, rows=tuple(row for row in result.rows if row["backbone"] in BACKBONES))
    if not result.rows:
        yield "The run was not evaluated."
    elif stored.get("backbone_sha256") not in (None, sha256):
        yield f"`{EVALUATION}` of the run is of other weights than these: evaluate the run again."
    else:
        yield from _main_scores(result)
    yield ""


def _main_scores(result: EvaluationResult) -> Iterator[str]:
    main, worst = result.main_rows(), _worst(result)
    rows = [row for row in main if not result.is_baseline(row["backbone"])] or main
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|" + len(COLUMNS) * "---|"
    yield from (f"| {' | '.join(map(plain, _cells(result, row, worst)))} |" for row in rows[:MOST_ROWS])
    yield ""
    if len(rows) > MOST_ROWS:
        yield f"- … and {len(rows) - MOST_ROWS:,} more rows"
    baselines = dict.fromkeys(
        other["backbone"] for row in rows if result.difference(row) is not None and (other := result.baseline_row(row))
    )
    shown = dict.fromkeys(row["backbone"] for row in rows)
    yield from (f"- {name}: {BACKBONES[name]}" for name in shown | baselines)
    if baselines:
        yield f"- difference: over {', '.join(baselines)}, in points for values in percent; intervals paired over test images"
    used = [name for name in dict.fromkeys(row["protocol"] for row in rows) if name in result.protocols]
    yield from (f"- {plain(short_name(name))}: {plain(result.protocols[name])}" for name in used[:MOST_WORDS])
    for dataset in [*dict.fromkeys(row["dataset"] for row in rows)][:MOST_WORDS]:
        words = [*result.images_words(dataset), *result.notes.get(dataset, [])]
        yield from (f"- {plain(dataset)}: {plain(one)}" for one in words[:MOST_WORDS])
    yield ""
    yield (
        f"95 %: intervals over the n test images unless a protocol says otherwise. All {len(result.rows):,} scores, and how each "
        f"interval was found, are in `{EVALUATION}` of the run."
    )


def _cells(result: EvaluationResult, row: Row, worst: dict[tuple[str, ...], str]) -> tuple[str, ...]:
    difference, other, compared = result.difference(row), result.baseline_row(row), ("", "")
    if difference is not None and other is not None:
        gain = f"{difference:+.1f}" if row["share"] else f"{difference:+.4g}"
        compared = value_words(other), _with_interval(gain, difference_interval_words(row))
    n = "" if row["n"] is None else f"{row['n']:,}"
    names = row["dataset"], short_name(row["protocol"]), row["backbone"], metric_words(row["metric"])
    return *names, _value(row), n, *compared, worst.get(_group(row), "")


def _worst(result: EvaluationResult) -> dict[tuple[str, ...], str]:
    """The worst class, and the worst group of each column of groups, where they are known."""
    found: dict[tuple[str, ...], list[str]] = {}
    for row in result.rows:
        if row["metric"].startswith(("worst_class_accuracy", "worst_group_accuracy")):
            kind = metric_words(row["metric"].removeprefix("worst_").replace("_accuracy", "", 1))
            named = re.search(r"lowest of \d+ \w+: (.+), \d+ of \d+ right", row["detail"])
            name = f" {named[1]}" if named else ""
            found.setdefault(_group(row), []).append(f"{kind}{name}: {_value(row)}")
    return {group: "; ".join(words) for group, words in found.items()}


def _group(row: Row) -> tuple[str, ...]:
    return tuple(row[key] for key in GROUP)


def _value(row: Row) -> str:
    return _with_interval(value_words(row), interval_words(row))


def _with_interval(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value
