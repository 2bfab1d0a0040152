"""`wildfern quickstart`: the whole way in a few minutes on a laptop, without network."""

import time
from pathlib import Path

from rich.console import Console

from wildfern.launch.pretraining import pretrain
from wildfern.launch.startup import process_start
from wildfern.launch.summary import show_run

WHAT = """[bold]wildfern quickstart[/]
1. fractals are rendered while training, none is stored; nobody collected, labeled or licensed an image
2. two views of each are made, and a small network learns to match them (SimCLR)
3. its frozen features, and those of the same network untrained, are probed on 1 797 real handwritten digits
"""


def run_quickstart(overrides: list[str], run: Path | None, resume: bool, console: Console) -> None:
    """Run the bundled recipe `quickstart`, or go on with such a run, and show what came of it."""
    console.print(WHAT)
    began = time.monotonic()
    folder = pretrain("quickstart", overrides, run, resume, since=process_start())
    show_run(folder, console)
    console.print(
        f"{time.monotonic() - began:.0f} s in all. Next: wildfern evaluate {folder} --on cifar10 --download · "
        "wildfern pretrain mix_folder_and_ifs data.0.source=folder:YOUR_IMAGES",
        highlight=False,
        markup=False,
    )
