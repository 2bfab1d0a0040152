"""The head of the report: what was trained on what, the numbers that matter most, and the command that repeats it."""

import shlex
from collections.abc import Sequence
from typing import Any

from wildfern.ssl.evaluation.report.parts import escape, percent, run_name, section, table
from wildfern.ssl.evaluation.report.scores import main_entry
from wildfern.ssl.evaluation.result import EvaluationResult
from wildfern.ssl.evaluation.run_record import RunRecord
from wildfern.ssl.evaluation.score_words import (
    difference_interval_words,
    interval_words,
    metric_words,
    short_name,
    value_words,
)

PRETRAINED = "pretrained"
MOST_NAMED = 20  # data sets


def header(records: Sequence[RunRecord], names: Sequence[str]) -> tuple[str, str]:
    """Title of the page, not escaped, and its header as HTML."""
    title = records[0].title if len(records) == 1 else f"{len(records)} runs compared"
    lead = _sentence(records[0]) if len(records) == 1 else " · ".join(dict.fromkeys(one.title for one in records))
    name = f" · {escape(names[0])}" * (len(records) == 1)
    return title, (
        f"<header><p class=kicker>wildfern report{name}</p><h1>{escape(title)}</h1><p class=lead>{escape(lead)}</p></header>"
    )


def overview(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """Key numbers of one run as tiles, of several as a table; what their folders lack; the command that repeats a run."""
    remarks = "".join(
        f"<li>{run_name(names, index)}: {escape('; '.join(record.remarks))}</li>"
        for index, record in enumerate(records)
        if record.remarks
    )
    missing = f"<div class=note><p>Missing or left out:</p><ul>{remarks}</ul></div>" if remarks else ""
    if len(records) == 1:
        return section("Overview", _tiles(records[0]) + missing + _command(records[0]))
    numbers = [_numbers(record) for record in records]
    keys = dict.fromkeys(key for one in numbers for key in one)
    rows = []
    for index, record in enumerate(records):
        cells = "".join(f"<td class=num>{_cell(*numbers[index].get(key, ('–', '')))}</td>" for key in keys)
        rows.append(f"<tr><th scope=row>{run_name(names, index)}<small>{escape(record.title)}</small></th>{cells}</tr>")
    head = ("run", *(escape(key) for key in keys))
    return section("Overview", table(head, rows, numbers=len(keys), caption="Key numbers of each run") + missing)


def _sentence(record: RunRecord) -> str:
    """`resnet18 pretrained by simclr on ifs: 60 steps of 64 images.`; as much of it as the recipe says."""
    if record.is_evaluation:
        return f"{', '.join(record.networks[:MOST_NAMED])}."
    recipe = record.recipe
    backbone, method = _text(recipe, "model", "backbone"), _text(recipe, "method", "name")
    words = [f"{backbone or 'A backbone'} pretrained" if backbone or method else record.name]
    words += [f"by {method}"] if method else []
    named = [source if share is None else f"{source} ({share:.0%})" for source, share in record.sources]
    words += [f"on {' and '.join(named)}"] if named else []
    weights = _text(recipe, "model", "weights")
    words += [f"from the weights {weights}"] if weights else []
    batch, steps = _count(recipe, "training", "batch_size"), _steps(record)
    said = " ".join(words)
    return f"{said}: {steps:,} steps of {batch:,} images." if steps and batch else f"{said}."


def _numbers(record: RunRecord) -> dict[str, tuple[str, str]]:
    """By name: a number, and a remark on it."""
    found: dict[str, tuple[str, str]] = {}
    steps, batch = _steps(record), _count(record.recipe, "training", "batch_size")
    planned = _count(record.recipe, "training", "steps")
    if steps:
        found["steps"] = f"{steps:,}", f"of {planned:,}" if planned and planned > steps else ""
    if steps and batch:
        found["images seen"] = _short(steps * batch), f"batches of {batch:,}"
    seconds = record.timings.get("step_seconds")
    if seconds:
        found["time in steps"] = _duration(seconds.total()), "without startup and evaluation"
    speed, wait = record.timings.get("images_per_second"), record.timings.get("data_wait")
    if speed:
        found["images/s"] = f"{speed.median():,.0f}", "median"
    if wait:
        found["data wait"] = percent(wait.median()), "of a step, median"
    loss = record.metrics.get("loss")
    if loss:
        found["last loss"] = f"{loss.values[-1]:.4g}", f"first {loss.values[0]:.4g}" if len(loss.values) > 1 else ""
    return found


def _tiles(record: RunRecord) -> str:
    tiles = [_score_tile(record)]
    tiles += [f"<div><dt>{escape(key)}</dt><dd>{_cell(*words)}</dd></div>" for key, words in _numbers(record).items()]
    return f"<dl class=tiles>{''.join(tiles)}</dl>" if any(tiles) else ""


def _score_tile(record: RunRecord) -> str:
    """The first score of the pretrained backbone, with its interval and gain."""
    result = EvaluationResult.from_json(record.evaluation)
    entry = main_entry(result, PRETRAINED)
    if entry is None:
        return ""
    row, baseline = entry
    name = f"{metric_words(row['metric'])}, {short_name(row['protocol'])} on {row['dataset']}"
    gain, words = result.difference(row), interval_words(row)
    if gain is not None and baseline is not None:
        form, between = ".1f" if row["share"] else ".4g", difference_interval_words(row)
        points = " points" if row["share"] else ""
        words += f"; {gain:+{form}}{points} over {baseline['backbone']}" + f" ({between})" * bool(between)
    return f"<div class=main><dt>{escape(name)}</dt><dd>{_cell(value_words(row), words)}</dd></div>"


def _cell(value: str, remark: str) -> str:
    return f"{escape(value)}" + f"<small>{escape(remark)}</small>" * bool(remark)


def _command(record: RunRecord) -> str:
    """What repeats the run, and with which version it was run."""
    if not record.recipe:
        return ""
    version, git = record.environment.get("wildfern"), record.environment.get("git")
    commit = git.get("commit") if isinstance(git, dict) else None
    words = f"with wildfern {version}" if isinstance(version, str) else ""
    words += f", commit {commit[:12]}" if isinstance(commit, str) else ""
    words += " with local changes" if isinstance(git, dict) and git.get("modified") is True else ""
    if type(processes := record.environment.get("processes")) is int and processes > 1:
        words += f", in {processes:,} processes"
    recipe = shlex.quote(f"{record.name}/recipe.yaml")
    code = f"wildfern pretrain {recipe} --run {shlex.quote(f'{record.name}-again')}"
    said = f"To repeat it, in the folder above{f' ({escape(words)})' if words else ''}:"
    return f"<p class=note-line>{said}</p><pre class=command><code>{escape(code)}</code></pre>{_evaluated(record)}"


def _evaluated(record: RunRecord) -> str:
    """The data sets that the recipe does not evaluate on."""
    wanted = _at(record.recipe, "evaluation", "on")
    entries = wanted if isinstance(wanted, list) else []
    sources = [one for entry in entries if isinstance(one := _at(entry, "source") or entry, str)]
    datasets = dict.fromkeys(row["dataset"] for row in EvaluationResult.from_json(record.evaluation).rows)
    further = [name for name in datasets if not name.startswith(tuple(sources))]
    if not further:
        return ""
    return f"<p class=note-line>Evaluated by wildfern evaluate: {escape(', '.join(further[:MOST_NAMED]))}.</p>"


def _steps(record: RunRecord) -> int:
    return max((int(one.steps[-1]) + 1 for one in record.metrics.values() if one.steps), default=0)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def _short(count: int) -> str:
    """12,800 or 1.3 million."""
    return f"{count:,}" if count < 1_000_000 else f"{count / 1e6:,.1f} million"


def _at(tree: Any, *path: str) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _text(recipe: dict, *path: str) -> str:
    found = _at(recipe, *path)
    return found if isinstance(found, str) else ""


def _count(recipe: dict, *path: str) -> int:
    found = _at(recipe, *path)
    return found if type(found) is int and 0 < found < 1e15 else 0
