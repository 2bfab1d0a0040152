"""The `wildfern` command line."""

import importlib.metadata
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from wildfern.launch.checkpoint_commands import checkpoint_app
from wildfern.launch.command import run_command
from wildfern.launch.completion import (
    complete,
    generator_words,
    recipe_or_run_words,
    recipe_words,
    source_words,
)
from wildfern.launch.curate_commands import curate_app
from wildfern.launch.exit_codes import EXIT_CODES
from wildfern.launch.finished_runs import cluster, evaluate, export, neighbors, report
from wildfern.launch.interrupts import Interrupts
from wildfern.launch.plugin_option import PluginOption, run_plugins
from wildfern.launch.pretrain_commands import PRETRAIN_EXAMPLES, Overrides, plan, pretrain, quickstart
from wildfern.launch.segment_commands import segment
from wildfern.launch.series_commands import compare, sweep
from wildfern.launch.startup import Startup
from wildfern.launch.terminal import console, say
from wildfern.printable import printable_lines
from wildfern.recipes import list_recipes, read_argument, recipe_text

# Of typer or of the package click, depending on the version of typer.
USAGE_ERRORS = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
EPILOG = f"\b\n{EXIT_CODES}"  # \b: do not rewrap

app = typer.Typer(
    help="Self-supervised pretraining of vision backbones on rendered and uncurated images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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


app.command(epilog=EPILOG)(quickstart)
app.command(epilog=f"{PRETRAIN_EXAMPLES}\n\n{EPILOG}")(pretrain)
app.command(epilog=EPILOG)(sweep)
app.command()(plan)
app.command()(evaluate)
app.command()(neighbors)
app.command()(cluster)
app.command()(segment)


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
    with Startup() as startup:
        from wildfern.launch.views_image import redraw_views

        startup.part(f"drawing the images of {recipe}")
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
    with Startup() as startup:
        from wildfern.launch.protocols import parse_source
        from wildfern.launch.stats import describe_source

        run_plugins(plugin)
        name, given = parse_source(source)
        startup.part(f"examining {name}")
        words = describe_source(name, given | parsed(arguments or []), split, images)
    print(words)


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
    with Startup() as startup:
        from wildfern.launch.init import init_recipe

        file, lines = init_recipe(folder, out, time, plugin or [], force, startup.progress)
    for line in lines:
        say(line)
    name = shlex.quote(str(file if "/" in str(file) or file.suffix in (".yaml", ".yml") else Path(".") / file))
    say(f"written to {file}; next:")
    for command in (f"views {name}", f"pretrain {name} --dry-run", f"pretrain {name}"):
        say(f"  wildfern {command}")


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="generators, augmentation, losses, curation, evaluation or pipeline")],
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


app.add_typer(curate_app, name="curate")
app.add_typer(checkpoint_app, name="checkpoint")
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
