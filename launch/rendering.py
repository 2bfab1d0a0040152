"""Galleries of a generator's images."""

import difflib
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wildfern.generators import STREAMS, ImageBatch, make_stream
from wildfern.launch.errors import RunError
from wildfern.launch.output_paths import output_file, writing
from wildfern.registry import SOURCES

GAP, CAPTION = 4, 14
MOST = 64  # along a side


def write_gallery(
    generator: str, arguments: dict[str, object], grid: str, out: Path, start: int = 0, parts: bool = False
) -> str:
    """Draw samples `start`, `start + 1`, … of a generator into one image file; return a line that describes it.

    Each sample shows index and label below, its paired image next to it if it has one, and with `parts` masks, width maps and
    center lines. Raises RunError for an invalid name, argument, grid or file.
    """
    found = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", grid)
    columns, rows = (int(n) for n in found.groups()) if found else (0, 0)
    if not (1 <= columns <= MOST and 1 <= rows <= MOST):
        raise RunError(f"--grid must be COLUMNSxROWS, each 1 to {MOST}, for example 8x8; got {grid!r}")
    if generator not in STREAMS:
        if generator in SOURCES:
            raise RunError(
                f"{generator} is no generator but makes images from those of another source: wildfern views draws them as a "
                "recipe trains on them"
            )
        near = difflib.get_close_matches(generator, STREAMS, n=1)
        raise RunError(
            f"unknown generator {generator!r}{f'; did you mean {near[0]}?' if near else '.'} There are: {', '.join(STREAMS)}"
        )
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise RunError(f"--out must be a .png, .jpg or .webp file, got {out}")
    out = output_file(out)
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    try:
        stream = make_stream(generator, **arguments)
    except (ValueError, TypeError) as error:
        raise RunError(str(error)) from None
    batch = stream.batch(np.arange(start, start + columns * rows)).on_host()
    panels = _panels(batch, parts)
    side = batch.images.shape[1]
    cell = max(side, 64)
    width = len(panels) * cell
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (cell + GAP + CAPTION) + GAP), "white")
    write = ImageDraw.Draw(sheet)
    scale = Image.Resampling.NEAREST if cell > side else Image.Resampling.BILINEAR
    for place in range(columns * rows):
        row, column = divmod(place, columns)
        left, top = GAP + column * (width + GAP), GAP + row * (cell + GAP + CAPTION)
        for number, pixels in enumerate(panels.values()):
            image = Image.fromarray(pixels[place]).resize((cell, cell), scale)
            sheet.paste(image, (left + number * cell, top))
        write.text((left, top + cell), f"{start + place}{_label(batch, place)}", fill="black")
    try:
        with writing(out) as path:
            sheet.save(path)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from None
    shown = f" ({' | '.join(panels)})" if len(panels) > 1 else ""
    below = "index" if batch.labels is None else "index · label"
    return f"{columns * rows} samples of {generator}{shown}, {side} px, {below} below: {out}"


def _panels(batch: ImageBatch, parts: bool) -> dict[str, np.ndarray]:
    """The images drawn side by side for each sample: uint8 images by name."""
    panels = {"image": batch.images}
    if batch.paired_images is not None:
        panels["paired image"] = batch.paired_images
    if parts:
        for name, array in (("mask", batch.masks), ("width", batch.widths), ("center line", batch.centerlines)):
            if array is not None:
                panels[name] = (255.0 * array / max(float(array.max(initial=0)), 1e-9)).astype(np.uint8)
    return panels


def _label(batch: ImageBatch, place: int) -> str:
    if batch.labels is None:
        return ""
    label = batch.labels[place]
    return f" · {', '.join(map(str, np.flatnonzero(label))) if np.ndim(label) else label}"
