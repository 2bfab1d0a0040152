"""`wildfern checkpoint`: merge."""

from pathlib import Path
from typing import Annotated

import typer

from wildfern.launch.startup import Startup
from wildfern.launch.terminal import say

checkpoint_app = typer.Typer(
    help="Checkpoints of a run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@checkpoint_app.callback()
def _commands() -> None:
    pass


@checkpoint_app.command()
def merge(
    run: Annotated[Path, typer.Argument(help="A run folder, of which the newest checkpoint is taken, or a checkpoint")],
    out: Annotated[Path, typer.Option(help="File to write or replace, in the format of safetensors")],
) -> None:
    """Write the state of a checkpoint, sharded or not, into one file, which is replaced if it exists."""
    with Startup():
        from wildfern.launch.checkpoint_merging import merge_checkpoint

        checkpoint, tensors, size = merge_checkpoint(run, out)
    say(f"{out}: {tensors:,} tensors of {checkpoint}, {size / 2**30:.2f} GiB")
