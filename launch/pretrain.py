"""The entry point for launchers: `deepspeed --module wildfern.launch.pretrain --recipe RECIPE [key=value …]`.

Run it in each process, through deepspeed, torchrun or Slurm's srun. It sets engine.name=deepspeed; an override may name another
engine.
"""

import argparse
import os
from pathlib import Path

from wildfern.launch import interrupts
from wildfern.launch.command import run_command


def main(arguments: list[str] | None = None) -> None:
    run_command(lambda: train(arguments))


def train(arguments: list[str] | None) -> None:
    """Train with these arguments of the command line (None: those of this process)."""
    from wildfern.launch.exit_codes import EXIT_CODES

    parser = argparse.ArgumentParser(
        prog="wildfern.launch.pretrain",
        description=__doc__,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--recipe", required=True, help="bundled name or path")
    # torchrun parses --run as its own --run-path; hence the second name.
    parser.add_argument("--run", "--run-folder", help="run folder, the same path on every host")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint of --run")
    parser.add_argument(
        "--plugin", action="append", default=[], help="Python file that registers components; is run on every rank"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved recipe, data, memory, time and disk, from a few steps of rank 0 alone; write nothing",
    )
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # the launcher adds it
    parser.add_argument("overrides", nargs="*", help="changes to the recipe: key.sub=value")
    given = parser.parse_intermixed_args(arguments)
    from wildfern.launch.cluster.slurm import launcher_variables
    from wildfern.launch.startup import Startup, process_start
    from wildfern.launch.streams import output_may_be_lost
    from wildfern.launch.terminal import console

    os.environ.update(launcher_variables(os.environ))
    overrides = launched(given.overrides)
    if given.dry_run:
        describe(given, overrides)
        return
    with Startup() as startup:
        from wildfern.launch.summary import show_run
        from wildfern.launch.training_run import pretrain

        folder = pretrain(given.recipe, overrides, given.run, given.resume, process_start(), given.plugin, startup)
    if os.environ.get("RANK", "0") == "0":
        with output_may_be_lost():
            show_run(folder, console)


def describe(given: argparse.Namespace, overrides: list[str]) -> None:
    """The dry run, by rank 0 alone and without the other ranks, which end at once."""
    from wildfern.launch.cluster.launcher_environment import NUMBERS, check_launcher_environment
    from wildfern.launch.errors import RunError

    if given.resume:
        raise RunError("--dry-run describes a new run: leave out --resume")
    check_launcher_environment(os.environ)
    if (os.environ.get("RANK") or "0") != "0":
        return
    from wildfern.launch.dry_run import dry_run

    ranks = int(os.environ.get("WORLD_SIZE") or 1)
    for name in (*NUMBERS, "MASTER_ADDR"):
        os.environ.pop(name, None)
    dry_run(given.recipe, overrides, given.run and Path(given.run), given.plugin, ranks)


def launched(overrides: list[str]) -> list[str]:
    """The overrides after engine.name=deepspeed, so that `engine.zero_stage=0` applies to it and `engine.name` overrides it."""
    return ["engine.name=deepspeed", *overrides]


if __name__ == "__main__":
    interrupts.Interrupts().install()
    main()
