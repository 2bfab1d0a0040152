"""The entry point for launchers: `deepspeed --module wildfern.launch.pretrain --recipe RECIPE [key=value …]`.

Each process runs this, started by deepspeed, torchrun or Slurm's srun. The engine is deepspeed here, whatever the recipe says,
for there is a launcher; the command line may name another.
"""

import argparse
import os
import sys

from wildfern.launch.cli import EXIT_CODES, explained
from wildfern.launch.slurm import launcher_variables


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="wildfern.launch.pretrain",
        description=__doc__,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--recipe", required=True, help="a bundled name or a path")
    # torchrun takes --run for its own --run-path, wherever it stands; the longer name is free.
    parser.add_argument("--run", "--run-folder", help="folder of the run, the same path on every node")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of --run")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # the launcher adds it
    parser.add_argument("overrides", nargs="*", help="changes to the recipe: key.sub=value")
    given = parser.parse_intermixed_args(arguments)
    from wildfern.launch.pretraining import pretrain
    from wildfern.launch.startup import process_start

    try:
        os.environ.update(launcher_variables(os.environ))
        pretrain(given.recipe, launched(given.overrides), given.run, given.resume, since=process_start())
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        code, message = explained(error)
        if code is None:
            raise
        print(message, file=sys.stderr, flush=True)
        _leave(code)


def launched(overrides: list[str]) -> list[str]:
    """The overrides with the launcher's engine before them: `engine.zero_stage=0` is a setting of it, and `engine.name` wins."""
    return ["engine.name=deepspeed", *overrides]


def _leave(code: int) -> None:
    """Exit; with processes lost, at once: what is left of the process group would wait for them."""
    from wildfern.ssl.training.heartbeat import LOST

    if code == LOST:
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
