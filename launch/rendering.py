"""Galleries of a generator's pictures."""

import difflib
import inspect
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wildfern.generators import STREAMS, make_stream
from wildfern.launch.run_folder import RunError

GAP, CAPTION = 4, 14
MOST = 64  # along a side


def write_gallery(generator: str, arguments: dict[str, object], grid: str, out: Path, start: int = 0) -> str:
    """Draw samples `start`, `start + 1`, … of a generator into one PNG, each with its index and label; returns what was drawn.

    Raises RunError in the user's words for a wrong name, setting, grid or file.
    """
    found = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", grid)
    columns, rows = (int(n) for n in found.groups()) if found else (0, 0)
    if not (1 <= columns <= MOST and 1 <= rows <= MOST):
        raise RunError(f"--grid is columns x rows, each 1 to {MOST}, for instance 8x8; got {grid!r}")
    if generator not in STREAMS:
        near = difflib.get_close_matches(generator, STREAMS, n=1)
        raise RunError(f"unknown generator {generator!r}{f'; did you mean {near[0]}?' if near else ''} ({known()})")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise RunError(f"--out must be a .png, .jpg or .webp file, got {out}")
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    try:
        stream = make_stream(generator, **arguments)
    except (ValueError, TypeError) as error:
        raise RunError(str(error)) from None
    batch = stream.batch(np.arange(start, start + columns * rows))
    side = batch.images.shape[1]
    cell = max(side, 64)
    sheet = Image.new("RGB", (columns * (cell + GAP) + GAP, rows * (cell + GAP + CAPTION) + GAP), "white")
    write = ImageDraw.Draw(sheet)
    scale = Image.Resampling.NEAREST if cell > side else Image.Resampling.BILINEAR
    for place, pixels in enumerate(batch.images):
        row, column = divmod(place, columns)
        left, top = GAP + column * (cell + GAP), GAP + row * (cell + GAP + CAPTION)
        sheet.paste(Image.fromarray(pixels).resize((cell, cell), scale), (left, top))
        label = "" if batch.labels is None else f" · {batch.labels[place]}"
        write.text((left, top + cell), f"{start + place}{label}", fill="black")
    try:
        sheet.save(out)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error}") from None
    return f"{columns * rows} pictures of {generator}, {side} px, index · label below each: {out}"


def known() -> str:
    """The generators and their settings, for error messages."""
    names = []
    for name, stream in STREAMS.items():
        keys = [p.name for p in inspect.signature(stream).parameters.values()]
        names.append(f"{name}: {', '.join(keys)}")
    return "; ".join(names)
