"""The summary printed at the end of a run."""

import json
from pathlib import Path

from rich.console import Console

from wildfern.ssl.evaluation import EvaluationResult


def show_run(run: Path, console: Console) -> None:
    """Print the run's evaluation, if it has one, and the paths of its files."""
    path = run / "evaluation.json"
    if path.is_file():
        console.print(EvaluationResult.from_json(json.loads(path.read_text(encoding="utf-8"))).table())
    console.print(
        f"report: {run}/report.html · views: {run}/views.png",
        highlight=False,
        markup=False,
    )
