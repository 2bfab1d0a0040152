"""The `wildfern` command."""

import importlib.metadata
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from wildfern.recipes import RecipeErrors, list_recipes, recipe_text

EXIT_CODES = """Exit codes: 0 done; 1 training failed; 2 what you can mend; 130, 143, 138 stopped by SIGINT (Ctrl-C), SIGTERM,
SIGUSR1 with a checkpoint, to go on from with --resume (a second signal ends at once, with the same codes and without one);
75 another process is gone: go on with --resume."""

app = typer.Typer(
    help="Self-supervised pretraining of vision backbones on rendered and uncurated images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console()

Overrides = Annotated[list[str] | None, typer.Argument(help="Changes to the recipe: key.sub=value", show_default=False)]
RunOption = Annotated[Path | None, typer.Option("--run", help="Folder of the run (default: runs/NAME-DATE)")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of --run")]


def _version(asked: bool) -> None:
    if asked:
        print(f"wildfern {importlib.metadata.version('wildfern')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    pass


@app.command(epilog=EXIT_CODES)
def quickstart(overrides: Overrides = None, run: RunOption = None, resume: ResumeOption = False) -> None:
    """Pretrain a small network on fractals rendered while training, then probe it on real digits."""
    from wildfern.launch.quickstart import run_quickstart

    run_quickstart(overrides or [], run, resume, console)


@app.command(epilog=EXIT_CODES)
def pretrain(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe (wildfern recipes) or a path to a YAML file")],
    overrides: Overrides = None,
    run: RunOption = None,
    resume: ResumeOption = False,
) -> None:
    """Pretrain from a recipe, leaving a run folder."""
    from wildfern.launch.pretraining import pretrain
    from wildfern.launch.startup import process_start
    from wildfern.launch.summary import show_run

    show_run(pretrain(recipe, overrides or [], run, resume, since=process_start()), console)


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe (wildfern recipes) or a path to a YAML file")],
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many GPUs, over all machines")] = 1,
    gpu: Annotated[str | None, typer.Option(help="Their name, for instance h100")] = None,
    memory: Annotated[float | None, typer.Option(help="Or: GiB of each")] = None,
    tflops: Annotated[float | None, typer.Option(help="Or: TFLOP/s of each, dense, at the recipe's precision")] = None,
    bandwidth: Annotated[float | None, typer.Option(help="Or: GB/s between two of them, one way")] = None,
    utilization: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the arithmetic that training will reach")
    ] = 0.3,
    images_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="Measured speed of all GPUs, in place of the two before")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also make two real steps here and print their peak")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here")] = None,
) -> None:
    """Say what a recipe will take (memory, arithmetic, traffic, hours, disk) without starting it."""
    from wildfern.launch import planning
    from wildfern.launch.assembling import with_precision
    from wildfern.launch.components import read_recipe
    from wildfern.launch.evaluating import choose_device
    from wildfern.launch.plan_table import plan_json, plan_table
    from wildfern.launch.run_folder import user_errors

    with user_errors():
        wanted = read_recipe(recipe, overrides or [], data_here=False)
        wanted = with_precision(wanted, choose_device(wanted.training.device) if measure else None)
        machine = planning.hardware(wanted.training.precision, gpu, memory, tflops, bandwidth)
        peak = planning.measure(wanted, gpus) if measure else None
        estimate = planning.estimate(wanted, gpus)
    console.print(plan_table(estimate, machine, utilization, images_per_second, peak))
    if json_file is not None:
        command = shlex.join(["wildfern", "plan", recipe, *(overrides or []), "--measure"])
        found = plan_json(estimate, machine, utilization, images_per_second, peak, command)
        json_file.write_text(json.dumps(found, indent=2) + "\n")
        console.print(f"written to {json_file}", markup=False)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run")],
    on: Annotated[
        list[str],
        typer.Option(
            "--on",
            help="A data set with labels: digits, 'parquet:X image_column=img' or '{source: parquet:X, …}'; repeat for several",
        ),
    ],
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="How to evaluate: linear,knn,finetune,retrieval, 'knn k=5' or '{name: knn, k: 5}'; repeat for several "
            "(default: linear,knn)",
            show_default=False,
        ),
    ] = None,
    few_shot: Annotated[str, typer.Option(help="Also evaluate with N labels per class, for example 5,20")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Draws of each few-label set")] = 3,
    download: Annotated[bool, typer.Option("--download", help="Download data sets that are missing here")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write this evaluation here")] = None,
) -> None:
    """Evaluate a run's backbone on labeled images, beside the same network untrained."""
    from wildfern.launch.evaluating import evaluate
    from wildfern.launch.protocols import parse_datasets, parse_protocols
    from wildfern.launch.run_folder import RunError

    try:
        shots = [int(n) for n in few_shot.split(",") if n.strip()]
    except ValueError:
        raise RunError(f"--few-shot takes numbers such as 5,20; got {few_shot!r}") from None
    datasets, protocols = parse_datasets(on), parse_protocols(["linear,knn"] if protocol is None else protocol)
    with console.status("evaluating") as status:
        evaluation = evaluate(run, datasets, protocols, shots, seeds, announce=status.update, download=download)
    console.print(evaluation.table())
    console.print(f"written to {run / 'evaluation.json'} and {run / 'report.html'}", markup=False)
    if json_file is not None:
        json_file.write_text(json.dumps(evaluation.as_json(), indent=2) + "\n", encoding="utf-8")
        console.print(f"written to {json_file}", markup=False)


@app.command()
def render(
    generator: Annotated[str, typer.Argument(help="Name of a generator, for instance ifs")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Its settings: key=value", show_default=False)] = None,
    grid: Annotated[str, typer.Option(help="Columns x rows")] = "8x8",
    out: Annotated[Path, typer.Option(help="The image to write")] = Path("gallery.png"),
    start: Annotated[int, typer.Option(min=0, help="Index of the first sample")] = 0,
    parts: Annotated[bool, typer.Option("--parts", help="Draw masks, width maps and center lines too")] = False,
) -> None:
    """Draw a labelled gallery of a generator's images."""
    from wildfern.launch.rendering import write_gallery

    words = write_gallery(generator, parsed(arguments or []), grid, out, start, parts)
    console.print(words, highlight=False, markup=False)


@app.command()
def views(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe, a YAML file, or the folder of a run")],
    overrides: Overrides = None,
    indices: Annotated[
        str, typer.Option(help="Which images, in the order of training: numbers and ranges such as 0-7,40")
    ] = "0-7",
    out: Annotated[Path, typer.Option(help="The image to write")] = Path("views.png"),
) -> None:
    """Draw what training sees of any of its images: the originals, and the views at their step."""
    from wildfern.launch.views_image import redraw_views

    console.print(redraw_views(recipe, overrides or [], indices, out), highlight=False, markup=False)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema for editors")] = False,
) -> None:
    """List the bundled recipes, or print one."""
    if schema:
        from wildfern.launch.components import components
        from wildfern.recipes import json_schema

        print(json.dumps(json_schema(components()), indent=2))
    elif name is not None:
        print(recipe_text(name), end="")
    else:
        table = Table(box=None, show_header=False)
        for recipe, line in list_recipes().items():
            table.add_row(f"[bold]{recipe}[/]", line)
        console.print(table)


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="generators, augmentation, losses or pipeline")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="pipeline: changes to the recipe: key.sub=value", show_default=False)
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="pipeline: a bundled recipe or a path (default: quickstart)")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each of the things compared runs")] = 3.0,
    compiled: Annotated[bool, typer.Option("--compile", help="pipeline: also with training.compile")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here")] = None,
) -> None:
    """Measure speed, always beside what it is to be compared with, in one process."""
    from wildfern.benchmarks import run_benchmark
    from wildfern.launch.benching import bench_pipeline
    from wildfern.launch.components import read_recipe
    from wildfern.launch.run_folder import RunError, user_errors

    with user_errors():
        if what == "pipeline":
            name = recipe or "quickstart"
            wanted = read_recipe(name, overrides or [])
            result = bench_pipeline(wanted, " ".join([name, *(overrides or [])]), seconds, compiled)
        elif recipe or overrides or compiled:
            raise RunError(f"a recipe, changes to it and --compile are for the benchmark pipeline, not for {what}")
        else:
            result = run_benchmark(what, seconds)
    console.print(result.table())
    if json_file is not None:
        json_file.write_text(json.dumps(result.as_json(), indent=2) + "\n")
        console.print(f"written to {json_file}", markup=False)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run")],
    format: Annotated[str, typer.Option(help="timm, safetensors or onnx")] = "timm",
    out: Annotated[Path | None, typer.Option(help="File to write (default: in the run folder)")] = None,
) -> None:
    """Write the pretrained backbone for other programs."""
    from wildfern.launch.exporting import export_backbone

    console.print(export_backbone(run, format, out), highlight=False, markup=False)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs")],
    out: Annotated[Path, typer.Option(help="The HTML file to write")] = Path("report.html"),
) -> None:
    """Compare runs in one HTML file that needs no network."""
    from wildfern.launch.run_folder import user_errors
    from wildfern.ssl.evaluation import write_report

    with user_errors():
        write_report(runs, out)
    console.print(f"written to {out}", markup=False)


@app.command()
def doctor(
    hosts: Annotated[Path | None, typer.Option(help="Examine the hosts of this hostfile instead")] = None,
    reach: Annotated[
        str, typer.Option(help="With --hosts: what runs a command line, given last, on {host}")
    ] = "ssh -o BatchMode=yes -o ConnectTimeout=10 {host}",
    folder: Annotated[Path, typer.Option(help="With --hosts: a folder that all are to share, for the run")] = Path("."),
    port: Annotated[int, typer.Option(min=1, max=65535, help="With --hosts: the master port")] = 29500,
) -> None:
    """Say what works on this machine, or between many, and how to get the rest."""
    if hosts is not None:
        from wildfern.launch.hosts import examine_hosts

        raise typer.Exit(examine_hosts(hosts, reach, folder, port, console))
    from wildfern.launch.doctor import examine

    raise typer.Exit(examine(console))


def parsed(arguments: list[str]) -> dict[str, object]:
    """`key=value` words with YAML values as a dictionary."""
    from wildfern.launch.run_folder import RunError

    values = {}
    for word in arguments:
        name, equals, text = word.partition("=")
        if not equals:
            raise RunError(f"settings are given as key=value; got {word!r}")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise RunError(f"{word!r}: the value is no YAML; quote it or close its brackets") from None
    return values


def main() -> None:
    """Run the command; what the user can mend is one message on standard error and exit code 2."""
    try:
        app()
    except Exception as error:
        code, message = explained(error)
        if code is None:
            raise
        print(message, file=sys.stderr)
        sys.exit(code)


def explained(error: Exception) -> tuple[int | None, str]:
    """Exit code and message for errors that the user can mend; (None, "") for those that are ours."""
    from wildfern.launch.pretraining import Stopped
    from wildfern.launch.run_folder import RunError
    from wildfern.ssl.data import DataError
    from wildfern.ssl.training import NotFinite
    from wildfern.ssl.training.heartbeat import ProcessLost

    if isinstance(error, Stopped | ProcessLost):
        return error.exit_code, str(error)
    if isinstance(error, NotFinite):
        return 1, str(error)
    if isinstance(error, RecipeErrors | RunError | DataError):
        return 2, str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return 2, f"{error.filename}: {error.strerror}"
    return None, ""


if __name__ == "__main__":
    main()
