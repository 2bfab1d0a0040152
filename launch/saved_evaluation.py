"""The `evaluation.json` of a run folder: written together with the rows that it has already."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from wildfern.files import updating
from wildfern.launch.run_folder import RunFolder, kept_aside
from wildfern.ssl.evaluation import EvaluationResult, write_report
from wildfern.ssl.evaluation.report.image_details import read_details, write_details
from wildfern.ssl.evaluation.result import upgraded_rows
from wildfern.ssl.evaluation.stored_result import EVALUATION, read_evaluation
from wildfern.ssl.tracking import environment


def save_merged(
    folder: RunFolder,
    evaluation: EvaluationResult,
    say: Callable[[str], None],
    backbone_sha256: str | None = None,
) -> None:
    """Write what is `merged` to the folder's `evaluation.json`; of two processes that do so at once, both keep their rows."""
    with updating(folder.path):
        earlier, _ = read_evaluation(folder.path)
        same = earlier.get("backbone_sha256") == (backbone_sha256 or folder.backbone_sha256())
        folder.write_json(EVALUATION, merged(folder, evaluation.as_json(), backbone_sha256, say))
        for dataset, details in evaluation.details.items():
            with suppress(ValueError):  # damaged: replaced
                details = details.with_earlier(read_details(folder.path, dataset) if same else None)
            write_details(folder.path, details)


def save_alone(folder: Path, evaluation: EvaluationResult) -> None:
    """Write the evaluation, its details, this machine and versions, and the report to a folder of its own."""
    own = RunFolder(folder)
    own.write_json(EVALUATION, evaluation.as_json())
    for details in evaluation.details.values():
        write_details(folder, details)
    own.write_json("environment.json", environment())
    write_report([folder], folder / "report.html")


def merged(
    folder: RunFolder,
    evaluation: dict,
    backbone_sha256: str | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> dict:
    """The evaluation, with the other rows of the folder's `evaluation.json`.

    Only rows of the same backbone are kept: `backbone_sha256` is that of the file that was evaluated (default: of
    the current `backbone.safetensors`), and is stored with the evaluation. The rows of a file without a hash are
    dropped: they may be of another backbone. A damaged file is set aside, with a message; what can be read of it is kept.
    """

    def what(row: dict) -> tuple:
        return row["dataset"], row["protocol"], row["backbone"]

    sha256 = backbone_sha256 or folder.backbone_sha256()
    earlier, faults = read_evaluation(folder.path)
    if faults:
        say(kept_aside(folder.path / EVALUATION, faults[0]))
    rows = upgraded_rows(earlier.get("rows", [])) if earlier.get("backbone_sha256") == sha256 else []
    new = {what(row) for row in evaluation["rows"]}
    kept = [row for row in rows if what(row) not in new]
    described = {row["protocol"] for row in kept}
    protocols = {name: words for name, words in earlier.get("protocols", {}).items() if name in described}
    known = {row["dataset"] for row in kept} - {row["dataset"] for row in evaluation["rows"]}
    notes = {name: found for name, found in earlier.get("notes", {}).items() if name in known}
    return {
        **evaluation,
        "protocols": protocols | evaluation["protocols"],
        "notes": notes | evaluation.get("notes", {}),
        "rows": kept + evaluation["rows"],
        "backbone_sha256": sha256,
    }
