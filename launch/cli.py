"""The `wildfern` command line."""

import importlib.metadata
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from wildfern.launch.command import run_command
from wildfern.launch.completion import (
    complete,
    generator_words,
    recipe_or_run_words,
    recipe_words,
    run_words,
    source_words,
)
from wildfern.launch.exit_codes import EXIT_CODES
from wildfern.launch.finished_runs import evaluate, export, report
from wildfern.launch.interrupts import Interrupts
from wildfern.launch.plugin_option import PluginOption, run_plugins
from wildfern.launch.series_commands import compare, sweep
from wildfern.launch.startup import Startup, process_start
from wildfern.launch.streams import output_may_be_lost
from wildfern.launch.terminal import console, say
from wildfern.printable import printable_lines
from wildfern.recipes import list_recipes, read_argument, recipe_text

# Of typer or of the package click, depending on the version of typer.
USAGE_ERRORS = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
EPILOG = f"\b\n{EXIT_CODES}"  # \b: do not rewrap
EXAMPLES = """\b
Examples:
  wildfern pretrain simclr_cifar10 data.download=true
  wildfern pretrain mix_folder_and_ifs data.0.source=folder:PATH training.steps=5000 --dry-run
  wildfern pretrain my.yaml --run runs/mine --resume"""

app = typer.Typer(
    help="Self-supervised pretraining of vision backbones on rendered and uncurated images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


Overrides = Annotated[list[str] | None, typer.Argument(help="Changes to the recipe: key.sub=value", show_default=False)]
RunOption = Annotated[
    Path | None, typer.Option("--run", help="Run folder (default: runs/NAME-DATE)", autocompletion=run_words)
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint of --run")]


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


@app.command(epilog=EPILOG)
def quickstart(
    overrides: Overrides = None, run: RunOption = None, resume: ResumeOption = False, plugin: PluginOption = None
) -> None:
    """Pretrain on rendered fractals, evaluate on digits."""
    from wildfern.launch.compile_ahead import compile_ahead

    compile_ahead("quickstart", overrides or [])
    with Startup() as startup:
        from wildfern.launch.quickstart import run_quickstart

        run_quickstart(overrides or [], run, resume, console, plugin or [], startup)


@app.command(epilog=f"{EXAMPLES}\n\n{EPILOG}")
def pretrain(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A bundled recipe (wildfern recipes) or a path to a YAML file", autocompletion=recipe_words
        ),
    ],
    overrides: Overrides = None,
    run: RunOption = None,
    resume: ResumeOption = False,
    seeds: Annotated[
        str, typer.Option(help="Train once for each seed, for example 0,1,2, and print one table", show_default=False)
    ] = "",
    plugin: PluginOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the resolved recipe, data, memory, time and disk; train a few steps only"
        ),
    ] = False,
) -> None:
    """Pretrain from a recipe and write a run folder."""
    if seeds:
        from wildfern.launch.series_commands import pretrain_with_seeds

        pretrain_with_seeds(recipe, overrides or [], seeds, run, resume, plugin or [], dry_run)
        return
    if dry_run:
        from wildfern.launch import dry_run as dry_runs
        from wildfern.launch.errors import RunError

        if resume:
            raise RunError("--dry-run describes a new run: leave out --resume")
        dry_runs.dry_run(recipe, overrides or [], run, plugin or [])
        return
    from wildfern.launch.compile_ahead import compile_ahead

    compile_ahead(recipe, overrides or [])
    with Startup() as startup:
        from wildfern.launch.summary import show_run
        from wildfern.launch.training_run import pretrain

        folder = pretrain(recipe, overrides or [], run, resume, process_start(), plugin or [], startup)
    with output_may_be_lost():
        show_run(folder, console)


app.command(epilog=EPILOG)(sweep)


@app.command()
def plan(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A bundled recipe (wildfern recipes) or a path to a YAML file", autocompletion=recipe_words
        ),
    ],
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs on all hosts")] = 1,
    gpu: Annotated[
        str | None, typer.Option(help="GPU model, for example h100; the options below replace its figures")
    ] = None,
    memory: Annotated[float | None, typer.Option(help="GiB of memory of each GPU")] = None,
    tflops: Annotated[float | None, typer.Option(help="Dense TFLOP/s of each GPU at the recipe's precision")] = None,
    bandwidth: Annotated[float | None, typer.Option(help="GB/s between two GPUs, one way")] = None,
    utilization: Annotated[float, typer.Option(min=0.001, max=1, help="Assumed share of the peak TFLOP/s")] = 0.3,
    images_per_second: Annotated[
        float | None,
        typer.Option(min=0.001, help="Measured throughput of all GPUs; replaces --tflops and --utilization"),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also run two real steps on this machine and print their peak memory")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this JSON file")] = None,
    plugin: PluginOption = None,
) -> None:
    """Estimate what a recipe needs, without running it.

    Memory per GPU and ZeRO stage, FLOPs, traffic, hours and disk.
    """
    from wildfern.launch import estimate as estimates
    from wildfern.launch.builders import with_precision
    from wildfern.launch.components import read_recipe
    from wildfern.launch.errors import user_errors
    from wildfern.launch.estimate_table import estimate_json, estimate_table
    from wildfern.launch.evaluating import choose_device
    from wildfern.launch.expected_time import cpu_flops
    from wildfern.launch.output_paths import output_file, write_json_file

    json_file = json_file and output_file(json_file)
    with user_errors():
        wanted = read_recipe(recipe, overrides or [], plugins=plugin or [], data_here=False)
        wanted = with_precision(wanted, choose_device(wanted.training.device) if measure else None)
        machine = estimates.hardware(wanted.training.precision, gpu, memory, tflops, bandwidth)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # no messages of torch's profiler
        peak = estimates.measure(wanted, gpus) if measure else None
        estimate = estimates.estimate(wanted, gpus)
    cpu = None if gpus > 1 or images_per_second else cpu_flops()
    console.print(estimate_table(estimate, machine, utilization, images_per_second, peak, cpu))
    if json_file is not None:
        plugins = [word for path in plugin or [] for word in ("--plugin", path)]
        command = shlex.join(["wildfern", "plan", recipe, *(overrides or []), *plugins, "--measure"])
        found = estimate_json(estimate, machine, utilization, images_per_second, peak, command)
        write_json_file(json_file, found)
        say(f"written to {json_file}")


app.command()(evaluate)


@app.command()
def render(
    generator: Annotated[
        str, typer.Argument(help="Name of a generator, for example ifs", autocompletion=generator_words)
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Arguments of the generator: key=value", show_default=False)
    ] = None,
    grid: Annotated[str, typer.Option(help="Columns x rows")] = "8x8",
    out: Annotated[Path, typer.Option(help="Image file to write")] = Path("gallery.png"),
    start: Annotated[int, typer.Option(min=0, max=2**62, help="Index of the first sample")] = 0,
    parts: Annotated[bool, typer.Option("--parts", help="Also draw masks, width maps and center lines")] = False,
    plugin: PluginOption = None,
) -> None:
    """Draw a gallery of a generator's images."""
    from wildfern.launch.rendering import write_gallery

    run_plugins(plugin)
    words = write_gallery(generator, parsed(arguments or []), grid, out, start, parts)
    say(words)


@app.command()
def views(
    recipe: Annotated[
        str, typer.Argument(help="A bundled recipe, a YAML file or a run folder", autocompletion=recipe_or_run_words)
    ],
    overrides: Overrides = None,
    indices: Annotated[
        str, typer.Option(help="Images, in training order: numbers and ranges, for example 0-7,40")
    ] = "0-7",
    out: Annotated[Path, typer.Option(help="Image file to write")] = Path("views.png"),
    plugin: PluginOption = None,
) -> None:
    """Render training images and their views."""
    from wildfern.launch.views_image import redraw_views

    words = redraw_views(recipe, overrides or [], indices, out, plugin or [])
    say(words)


@app.command()
def stats(
    source: Annotated[
        str, typer.Argument(help="A data source, for example folder:PATH, digits or ifs", autocompletion=source_words)
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Arguments of the source: key=value", show_default=False)
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Number of images to examine, spread evenly")] = 100,
    split: Annotated[str, typer.Option(help="train or test")] = "train",
    plugin: PluginOption = None,
) -> None:
    """Describe a data source: sizes, channels, values, classes.

    Also prints value_range and the mean and standard deviation for views, as recipe keys.
    """
    from wildfern.launch.protocols import parse_source
    from wildfern.launch.stats import describe_source

    run_plugins(plugin)
    name, given = parse_source(source)
    print(describe_source(name, given | parsed(arguments or []), split, images))


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe", autocompletion=recipe_words)] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes, for editors")] = False,
    plugin: PluginOption = None,
) -> None:
    """List the bundled recipes, or print one of them."""
    run_plugins(plugin)
    if schema:
        from wildfern.launch.components import components
        from wildfern.recipes import json_schema

        print(json.dumps(json_schema(components()), indent=2))
    elif name is not None:
        print(recipe_text(name), end="")
    else:
        found = list_recipes()
        width = max(map(len, found), default=0)
        for recipe, line in found.items():  # without a table, which would pad the lines
            console.print(Text.assemble((recipe.ljust(width), "bold"), f"  {line}"), soft_wrap=True)


@app.command()
def init(
    folder: Annotated[str, typer.Argument(help="A folder of images, searched recursively; no labels needed")],
    out: Annotated[Path, typer.Option(help="Recipe file to write")] = Path("recipe.yaml"),
    time: Annotated[str, typer.Option(help="Time for training on this machine: 30m, 1h, 1h30m, 2d")] = "1h",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file")] = False,
    plugin: PluginOption = None,
) -> None:
    """Write a recipe for a folder of your images.

    Chooses network, sizes and steps for the time given on this machine, and says why.
    """
    from wildfern.launch.init import init_recipe

    file, lines = init_recipe(folder, out, time, plugin or [], force)
    for line in lines:
        say(line)
    name = shlex.quote(str(file if "/" in str(file) or file.suffix in (".yaml", ".yml") else Path(".") / file))
    say(f"written to {file}; next:")
    for command in (f"views {name}", f"pretrain {name} --dry-run", f"pretrain {name}"):
        say(f"  wildfern {command}")


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="generators, augmentation, losses or pipeline")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="For pipeline: changes to the recipe: key.sub=value", show_default=False)
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="For pipeline: a bundled recipe or a path (default: quickstart)", autocompletion=recipe_words
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of each measurement")] = 3.0,
    compiled: Annotated[
        bool, typer.Option("--compile", help="For pipeline: also measure with training.compile")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this JSON file")] = None,
    plugin: PluginOption = None,
) -> None:
    """Measure speed relative to a reference."""
    from wildfern.benchmarks import run_benchmark
    from wildfern.launch.benching import bench_pipeline
    from wildfern.launch.components import read_recipe
    from wildfern.launch.errors import RunError, user_errors
    from wildfern.launch.output_paths import output_file, write_json_file

    json_file = json_file and output_file(json_file)
    with user_errors():
        if what == "pipeline":
            name = recipe or "quickstart"
            wanted = read_recipe(name, overrides or [], plugins=plugin or [])
            result = bench_pipeline(wanted, " ".join([name, *(overrides or [])]), seconds, compiled)
        elif recipe or overrides or compiled or plugin:
            raise RunError(
                f"--recipe, changes to the recipe, --plugin and --compile apply to the benchmark pipeline only, not to {what}"
            )
        else:
            result = run_benchmark(what, seconds)
    console.print(result.table())
    if json_file is not None:
        write_json_file(json_file, result.as_json())
        say(f"written to {json_file}")


app.command()(export)
app.command()(report)
app.command()(compare)


@app.command()
def doctor() -> None:
    """Check this machine and suggest fixes."""
    from wildfern.launch.doctor import examine

    raise typer.Exit(examine(console))


def parsed(arguments: list[str]) -> dict[str, object]:
    """Parse `key=value` words, with YAML values as in recipes."""
    from wildfern.launch.errors import RunError

    values = {}
    for word in arguments:
        name, equals, text = word.partition("=")
        if not equals:
            raise RunError(f"arguments must be key=value; got {word!r}")
        values[name], problems = read_argument(text, "", name)
        if problems:
            raise RunError("; ".join(map(str, problems)))
    return values


def invoke() -> None:
    """Run the command in `sys.argv`. Its errors and KeyboardInterrupt are raised, which typer's own main would report."""
    command = typer.main.get_command(app)
    complete(command)
    try:
        with command.make_context("wildfern", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except USAGE_ERRORS as error:
        error.message = printable_lines(error.message)
        error.show()
        sys.exit(error.exit_code)


def main() -> None:
    """Run the command; print errors of command, recipe or data as one message to stderr, with exit code 2."""
    run_command(invoke)


if __name__ == "__main__":
    Interrupts().install()
    main()
