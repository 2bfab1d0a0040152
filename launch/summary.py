"""The summary printed at the end of a run."""

from pathlib import Path

from rich.console import Console

from wildfern.printable import printable
from wildfern.ssl.evaluation import EvaluationResult, read_run


def show_run(run: Path, console: Console) -> None:
    """Print the run's evaluation, if it has one of its present backbone, and the paths of its files."""
    record = read_run(run, whole=False)
    if record.evaluation:
        console.print(EvaluationResult.from_json(record.evaluation).table())
    console.print(
        printable(f"report: {run}/report.html · views: {run}/views.png"),
        highlight=False,
        markup=False,
        emoji=False,
    )
