"""The commands on several runs: sweep, compare, and pretrain with several seeds."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildfern.launch.plugin_option import PluginOption
from wildfern.launch.terminal import console, say

if TYPE_CHECKING:
    from wildfern.ssl.evaluation import Comparison


def sweep(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe (wildfern recipes) or a path to a YAML file")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Changes to the recipe: key.sub=value, or key.sub=a,b for several values ([a,b] is one)",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Train each setting once for each seed, for example 0,1", show_default=False)
    ] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the series (default: runs/NAME-DATE)")] = None,
    random: Annotated[
        int | None,
        typer.Option(
            min=1, help="N random points instead of the grid; also of ranges: key=log:1e-4..1e-2, key=uniform:0..1"
        ),
    ] = None,
    list_file: Annotated[
        Path | None, typer.Option("--list", help="YAML file with a list of settings instead of a grid")
    ] = None,
    gpus: Annotated[
        str,
        typer.Option(help="Run side by side, one process for each of these GPUs, for example 0,1", show_default=False),
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the series in --run")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table to this JSON file")] = None,
    plugin: PluginOption = None,
) -> None:
    """Pretrain with several settings and seeds, and print one table.

    Every combination of the values is a run. Errors of all settings are reported before the first run starts.
    """
    from wildfern.launch.sweeping import parse_seeds, sweep

    _show(
        lambda: sweep(
            recipe,
            overrides or [],
            seeds=None if seeds is None else parse_seeds(seeds),
            run=run,
            random=random,
            list_file=list_file,
            gpus=[gpu.strip() for gpu in gpus.split(",") if gpu.strip()],
            resume=resume,
            plugins=plugin or [],
            say=say,
        ),
        json_file,
    )


def pretrain_with_seeds(
    recipe: str, overrides: list[str], seeds: str, run: Path | None, resume: bool, plugins: list[str], dry_run: bool
) -> None:
    """Train a recipe with each seed and print the table."""
    from wildfern.launch.errors import RunError

    if dry_run:
        raise RunError("--dry-run describes one run: leave out --seeds")
    from wildfern.launch.sweeping import parse_seeds, pretrain_seeds

    _show(lambda: pretrain_seeds(recipe, overrides, parse_seeds(seeds), run, resume, plugins, say), None)


def _show(train: Callable[[], "Comparison"], json_file: Path | None) -> None:
    """Train, then print and write the table, also if some runs failed."""
    from wildfern.launch.output_paths import output_file, write_json_file
    from wildfern.launch.streams import output_may_be_lost
    from wildfern.launch.sweeping import SeriesFailed

    json_file = json_file and output_file(json_file)
    failed = None
    try:
        table = train()
    except SeriesFailed as error:
        table, failed = error.table, error
    with output_may_be_lost():
        if table.groups:
            console.print(table.table())
    if json_file is not None:
        write_json_file(json_file, table.as_json())
        say(f"written to {json_file}")
    if failed is not None:
        raise failed


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write both tables to this JSON file")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the report of these runs, an HTML file")] = None,
) -> None:
    """Compare runs: the settings that differ, and the scores.

    Runs that differ only in their seed are one row: mean, standard deviation and number of runs.
    """
    from wildfern.launch.errors import RunError
    from wildfern.launch.evaluated import run_names
    from wildfern.launch.output_paths import output_file, write_json_file, writing
    from wildfern.launch.run_folder import RunFolder
    from wildfern.ssl.evaluation import compare_runs, read_run, record_names, report_page

    json_file, out = json_file and output_file(json_file), out and output_file(out)
    run_names([RunFolder(path) for path in runs])  # none is named twice
    records, left_out = [], {}
    for path in runs:
        try:
            records.append(read_run(path, whole=out is not None))
        except (ValueError, OSError) as error:
            left_out[str(path)] = str(error).removeprefix(f"{path}: ")
    if not records:
        raise RunError("; ".join(f"{name}: {reason}" for name, reason in left_out.items()))
    comparison = compare_runs(records, record_names(records), left_out=left_out)
    console.print(comparison.table())
    if json_file is not None:
        write_json_file(json_file, comparison.as_json())
        say(f"written to {json_file}")
    if out is not None:
        page = report_page(records, comparison)
        with writing(out) as path:
            path.write_bytes(page.encode("utf-8", "backslashreplace"))
        say(f"written to {out}")
