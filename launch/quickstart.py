"""`wildfern quickstart`: pretraining and evaluation in a few minutes on a laptop, without a network."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from wildfern.launch.run_folder import RunFolder
from wildfern.launch.startup import Startup, process_start
from wildfern.launch.streams import output_may_be_lost
from wildfern.launch.summary import show_run
from wildfern.launch.training_run import pretrain
from wildfern.printable import printable

WHAT = """[bold]wildfern quickstart[/]
1. render fractals during training, without a dataset
2. train a small network to match two views of each image (SimCLR)
3. evaluate its frozen features, and those of a random network, on 1,797 handwritten digits
"""


def run_quickstart(
    overrides: list[str],
    run: Path | None,
    resume: bool,
    console: Console,
    plugins: Sequence[str] = (),
    startup: Startup | None = None,
) -> None:
    """Run or resume the bundled recipe `quickstart` and print its results."""
    RunFolder.for_writing(run, "quickstart", resume)  # refuses an existing run before anything is said
    with output_may_be_lost():
        console.print(WHAT)
    began = process_start()
    folder = pretrain("quickstart", overrides, run, resume, began, plugins, startup)
    with output_may_be_lost():
        show_run(folder, console)
        console.print(
            f"{time.perf_counter() - began:.0f} s in total. Next:\n"
            f"  wildfern neighbors {printable(shlex.quote(str(folder)))}  # which images the network finds similar\n"
            "  wildfern init YOUR_IMAGES  # a recipe for images of your own",
            soft_wrap=True,
            highlight=False,
            markup=False,
            emoji=False,
        )
