"""What a person sees when a run is over."""

import json
from pathlib import Path

from rich.console import Console

from wildfern.ssl.evaluation import Evaluation


def show_run(run: Path, console: Console) -> None:
    """Print the run's evaluation, if it has one, and where everything is."""
    path = run / "evaluation.json"
    if path.is_file():
        found = json.loads(path.read_text())
        rows = tuple({k: v for k, v in row.items() if k != "difference"} for row in found["rows"])
        console.print(Evaluation(rows, found["protocols"], found["baseline"]).table())
    console.print(
        f"everything about this run: {run}/report.html · what the model saw: {run}/views.png",
        highlight=False,
        markup=False,
    )
