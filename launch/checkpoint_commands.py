"""`wildfern checkpoint`: merge, backbone."""

from pathlib import Path
from typing import Annotated

import typer

from wildfern.launch.plugin_option import PluginOption, run_plugins
from wildfern.launch.startup import Startup
from wildfern.launch.terminal import say

checkpoint_app = typer.Typer(
    help="Checkpoints of a run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


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


@checkpoint_app.command()
def backbone(run: Annotated[Path, typer.Argument(help="Run folder")], plugin: PluginOption = None) -> None:
    """Write backbone.safetensors of a run from its newest checkpoint, to evaluate or export a run that is not complete."""
    with Startup():
        run_plugins(plugin)
        from wildfern.launch.checkpoint_merging import write_newest_backbone

        checkpoint, tensors, size = write_newest_backbone(run)
    say(f"{run / 'backbone.safetensors'}: {tensors:,} tensors of {checkpoint}, {size / 2**30:.2f} GiB")
