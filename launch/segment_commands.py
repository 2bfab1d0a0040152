"""`wildfern segment`."""

from pathlib import Path
from typing import Annotated

import typer

from wildfern.launch.completion import run_words
from wildfern.launch.plugin_option import PluginOption, run_plugins
from wildfern.launch.startup import Startup
from wildfern.launch.terminal import say


def segment(
    run: Annotated[
        Path, typer.Argument(help="Run folder of a method that segments, such as freecos", autocompletion=run_words)
    ],
    images: Annotated[
        str,
        typer.Argument(help="A folder of images, an image, or a source such as '{source: folder:PATH, bands: [1]}'"),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for masks and tables: a new one, or that of an earlier segmentation")
    ],
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Probability from which a pixel is in the mask (default: chosen in training on rendered images)"
        ),
    ] = None,
    pixel_size: Annotated[
        float,
        typer.Option(help="Side of a pixel, for example in micrometers: the unit of lengths and widths in the tables"),
    ] = 1.0,
    smallest: Annotated[
        float,
        typer.Option(help="Remove objects of a smaller area from the masks; in the square of the unit of --pixel-size"),
    ] = 0.0,
    shortest: Annotated[
        float,
        typer.Option(help="Leave shorter segments with a free end out of the tables; in the unit of --pixel-size"),
    ] = 0.0,
    scale: Annotated[
        float | None,
        typer.Option(
            help="Resize images by this factor before segmenting (default: so that objects are as wide as in training)"
        ),
    ] = None,
    overlap: Annotated[float, typer.Option(help="Overlap of neighboring windows, as a share of their side")] = 0.25,
    overlays: Annotated[
        bool, typer.Option("--overlays/--no-overlays", help="Also write images with their masks drawn in")
    ] = True,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write probabilities as gray images")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows in one forward pass")] = 8,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch (default: those of the CPU cores this process may use)")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Segment images with the network of a run: masks, overlays, and tables of lengths and widths.

    Writes NAME.png for each image, overlays/NAME.jpg, images.csv, and segments.csv with a row for each segment of the skeletons.
    """
    with Startup() as startup:
        from wildfern.launch.protocols import parse_datasets
        from wildfern.launch.segmenting import segment

        run_plugins(plugin)
        is_source = not Path(images).expanduser().exists()
        found = segment(
            run,
            parse_datasets([images])[0] if is_source else images,
            out,
            threshold=threshold,
            scale=scale,
            overlap=overlap,
            pixel_size=pixel_size,
            smallest=smallest,
            shortest=shortest,
            overlays=overlays,
            probabilities=probabilities,
            batch_size=batch_size,
            threads=threads,
            announce=startup.progress,
            say=say,
        )
    for name, reason in found.unreadable.items():
        say(f"could not be read: {name}: {reason}")
    images_words = "1 mask" if found.images == 1 else f"{found.images:,} masks"
    say(f"{images_words} written to {found.out}, {found.segments:,} segments to {found.out / 'segments.csv'}")
    say(f"threshold {found.threshold:.2f}, {found.threshold_words}")
