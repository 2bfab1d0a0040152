"""One self-contained HTML page about a run, or that compares several: scores, curves, test images, machine and recipe."""

import os
from collections.abc import Sequence
from pathlib import Path

from wildfern.files import write_text
from wildfern.ssl.evaluation.report.comparison import Comparison, compare_runs
from wildfern.ssl.evaluation.report.comparison_section import comparison_sections
from wildfern.ssl.evaluation.report.corruptions import corruptions_section
from wildfern.ssl.evaluation.report.data import data_section, views_section
from wildfern.ssl.evaluation.report.details import details_sections, filters_section
from wildfern.ssl.evaluation.report.document import document
from wildfern.ssl.evaluation.report.environment import environment_sections
from wildfern.ssl.evaluation.report.head import header, overview
from wildfern.ssl.evaluation.report.positions import Embedding, check_embedding
from wildfern.ssl.evaluation.report.scores import scores_section
from wildfern.ssl.evaluation.report.training import training_sections
from wildfern.ssl.evaluation.run_record import RunRecord, read_run


def write_report(
    runs: Sequence[RunRecord | Path | str],
    out: Path | str,
    comparison: Comparison | None = None,
    *,
    embedding: Embedding = "auto",
) -> Path:
    """Write the `report_page` of one or more run folders to `out`, as a whole, and return its path.

    A link at `out` is followed, but replaced in the folder of one of the runs. Raises ValueError for a folder without a run, and
    if there are no runs; OSError if the file cannot be written.
    """
    page, out = report_page(runs, comparison, embedding=embedding), Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    folders = [run.folder if isinstance(run, RunRecord) else Path(run) for run in runs]
    within = any(folder.samefile(out.parent) for folder in folders if folder.exists())
    write_text(out if within else os.path.realpath(out), page)
    return out


def report_page(
    runs: Sequence[RunRecord | Path | str], comparison: Comparison | None = None, *, embedding: Embedding = "auto"
) -> str:
    """The page, self-contained: images, data, style and scripts are in it. It names what a folder lacks.

    On top of several runs is their comparison, grouped by seed, or the one given. The map of test images has the positions of
    `embedding`: "pca", "umap" (package umap-learn; seconds to minutes), or "auto", which is "pca".

    Raises ValueError for a folder without a run, if there are no runs, for an unknown embedding, and for "umap" without its
    package.
    """
    check_embedding(embedding)
    records = [run if isinstance(run, RunRecord) else read_run(run) for run in runs]
    if not records:
        raise ValueError("a report needs at least one run folder")
    names = record_names(records)
    if comparison is None and len(records) > 1:
        comparison = compare_runs(records, names)
    title, head = header(records, names)
    body = [
        comparison_sections(comparison) if comparison is not None else "",
        overview(records, names),
        scores_section(records, names),
        corruptions_section(records, names),
        details_sections(records, names, embedding),
        training_sections(records, names),
        filters_section(records, names),
        views_section(records, names),
        data_section(records, names),
        environment_sections(records, names),
    ]
    return document(title, head, "".join(body))


def record_names(records: Sequence[RunRecord]) -> list[str]:
    """Folder names, with the parent's name if two are equal."""
    plain = [record.name for record in records]
    return [
        f"{record.folder.resolve().parent.name}/{name}" if plain.count(name) > 1 else name
        for record, name in zip(records, plain, strict=True)
    ]
