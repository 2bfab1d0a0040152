"""The path of a run, which a notebook shows with recipe, steps, scores and the way to the report."""

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from wildfern.files import is_regular
from wildfern.ssl.evaluation import EvaluationResult, RunRecord, read_run
from wildfern.ssl.evaluation.report.parts import escape
from wildfern.ssl.evaluation.result_table import html_table

_Path = Path if TYPE_CHECKING else type(Path())


class RunPath(_Path):
    """A run folder: a path like any other."""

    def _repr_html_(self) -> str | None:
        """A summary of what the folder holds now; None, for the plain path, where there is no run."""
        try:
            record = read_run(self, whole=False)
        except (OSError, ValueError):
            return None
        lines = [f"<b>{escape(record.title)}</b> in <code>{escape(str(self))}</code>", _steps(record)]
        rows = EvaluationResult.from_json(record.evaluation)
        scores = html_table(rows, explained=False) if rows.rows else ""
        links = " · ".join(
            _link(self / name, words) for name, words in (("report.html", "report"), ("views.png", "views"))
        )
        return f"<div>{'<br>'.join(lines)}{scores or '<br>'}{links}</div>"


def _steps(record: RunRecord) -> str:
    done = max((series.steps[-1] + 1 for series in record.metrics.values()), default=0)
    training = record.recipe.get("training")
    total = training.get("steps") if isinstance(training, dict) else None
    of = f" of {total:,}" if type(total) is int else ""
    loss = record.metrics.get("loss")
    return f"{done:,.0f}{of} steps" + ("" if loss is None else f", last loss {loss.values[-1]:.4g}")


def _link(file: Path, words: str) -> str:
    """A link if the file is below the working folder, from where notebooks reach it; else its path."""
    if not is_regular(file):
        return f"no {words} yet"
    try:
        within = os.path.relpath(file)
    except OSError:  # the working folder is gone
        within = os.pardir
    if within.startswith(os.pardir):
        return f"{words}: <code>{escape(str(file))}</code>"
    return f'<a href="./{quote(os.fsencode(Path(within).as_posix()))}" target="_blank">{words}</a>'
