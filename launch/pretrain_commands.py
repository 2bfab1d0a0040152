"""The commands before and during one training: quickstart, pretrain, plan."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from wildfern.launch.completion import recipe_words, run_words
from wildfern.launch.plugin_option import PluginOption
from wildfern.launch.startup import Startup, process_start
from wildfern.launch.streams import output_may_be_lost
from wildfern.launch.terminal import console, say

PRETRAIN_EXAMPLES = """\b
Examples:
  wildfern pretrain simclr_cifar10 data.download=true
  wildfern pretrain mix_folder_and_ifs data.0.source=folder:PATH training.steps=5000 --dry-run
  wildfern pretrain my.yaml --run runs/mine --resume"""

Overrides = Annotated[list[str] | None, typer.Argument(help="Changes to the recipe: key.sub=value", show_default=False)]
RunOption = Annotated[
    Path | None, typer.Option("--run", help="Run folder (default: runs/NAME-DATE)", autocompletion=run_words)
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint of --run")]


def quickstart(
    overrides: Overrides = None, run: RunOption = None, resume: ResumeOption = False, plugin: PluginOption = None
) -> None:
    """Pretrain on rendered fractals, evaluate on digits."""
    from wildfern.launch.compile_ahead import compile_ahead

    compile_ahead("quickstart", overrides or [])
    with Startup() as startup:
        from wildfern.launch.quickstart import run_quickstart

        run_quickstart(overrides or [], run, resume, console, plugin or [], startup)


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
        str | None,
        typer.Option(help="Train once for each seed, for example 0,1,2, and print one table", show_default=False),
    ] = None,
    plugin: PluginOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the resolved recipe, data, memory, time and disk; train a few steps only"
        ),
    ] = False,
) -> None:
    """Pretrain from a recipe and write a run folder."""
    if seeds is not None:
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
        from wildfern.launch.run_decoder import has_decoder
        from wildfern.launch.summary import show_run
        from wildfern.launch.training_run import pretrain

        folder = pretrain(recipe, overrides or [], run, resume, process_start(), plugin or [], startup)
    with output_may_be_lost():
        show_run(folder, console)
        said = shlex.quote(str(folder))
        segment = f"wildfern segment {said} IMAGES --out MASKS · " if has_decoder(folder) else ""
        say(f"next: {segment}wildfern neighbors {said} · wildfern export {said}")


MOST_GPUS, MOST_IMAGES = 10**6, 10**15  # of `plan`, as LEAST and MOST, so that its results are finite
LEAST, MOST = 0.001, 1e9


def number_option(words: str, most: float = MOST) -> typer.models.OptionInfo:
    """An option for a number from `LEAST` to `most`; inf and nan are refused."""

    def checked(value: float | None) -> float | None:
        if value is None or LEAST <= value <= most:  # False for nan
            return value
        raise typer.BadParameter(f"must be a finite number above 0, from {LEAST:g} to {most:,.0f}, got {value:g}")

    return typer.Option(help=words, callback=checked)


def plan(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A bundled recipe (wildfern recipes) or a path to a YAML file", autocompletion=recipe_words
        ),
    ],
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option(min=1, max=MOST_GPUS, help="Number of GPUs on all hosts")] = 1,
    gpus_per_host: Annotated[
        int, typer.Option(min=1, max=MOST_GPUS, help="GPUs of a host, which loads their images")
    ] = 8,
    images: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_IMAGES, help="Images in a folder or in tar shards: print the size of their index"),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="GPU model, for example h100; the options below replace its figures")
    ] = None,
    memory: Annotated[float | None, number_option("GiB of memory of each GPU")] = None,
    tflops: Annotated[float | None, number_option("Dense TFLOP/s of each GPU at the recipe's precision")] = None,
    bandwidth: Annotated[float | None, number_option("GB/s between two GPUs of a host, one way")] = None,
    host_bandwidth: Annotated[
        float, number_option("GB/s out of a host, one way; 50 is InfiniBand of 400 Gbit/s")
    ] = 50.0,
    utilization: Annotated[float, number_option("Assumed share of the peak TFLOP/s, at most 1", most=1)] = 0.3,
    images_per_second: Annotated[
        float | None,
        number_option("Measured throughput of all GPUs; replaces --tflops and --utilization"),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also run two real steps on this machine and print their peak memory")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this JSON file")] = None,
    plugin: PluginOption = None,
) -> None:
    """Estimate what a recipe needs, without running it.

    Memory per GPU and ZeRO stage, FLOPs, traffic, hours, disk, and the data of a host.
    """
    from wildfern.launch import estimate as estimates
    from wildfern.launch.builders import with_precision
    from wildfern.launch.components import read_recipe
    from wildfern.launch.device import choose_device
    from wildfern.launch.errors import user_errors
    from wildfern.launch.estimate_table import estimate_json, estimate_table
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
    hosts = estimates.Hosts(gpus_per_host, images, host_bandwidth)
    console.print(estimate_table(estimate, machine, utilization, images_per_second, peak, cpu, hosts))
    if json_file is not None:
        plugins = [word for path in plugin or [] for word in ("--plugin", path)]
        command = shlex.join(["wildfern", "plan", recipe, *(overrides or []), *plugins, "--measure"])
        found = estimate_json(estimate, machine, utilization, images_per_second, peak, command, hosts)
        write_json_file(json_file, found)
        say(f"written to {json_file}")
