"""`views.png`: training images and their views."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from wildfern.launch.builders import build_views, check_channels, open_mixture
from wildfern.launch.components import read_recipe
from wildfern.launch.data_record import check_same_files
from wildfern.launch.errors import RunError, user_errors
from wildfern.launch.output_paths import output_file, writing
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.augmentation import Views
from wildfern.ssl.data import Mixture

CELL, GAP, MARGIN = 128, 4, 22
ROWS, MOST_ROWS, MOST_VIEWS = 8, 64, 10


def redraw_views(recipe: str, overrides: Sequence[str], indices: str, out: Path, plugins: Sequence[str] = ()) -> str:
    """Draw images and views of a recipe, or of a run folder's recipe; return a line that describes the file.

    `indices`: numbers and ranges such as "0-7,40", in training order, as in `nonfinite.jsonl`: step s uses the images
    s·B … (s + 1)·B - 1 with batch size B. Raises RunError for invalid indices or file.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise RunError(f"--out must be a .png, .jpg or .webp file, got {out}")
    out, wanted, folder = output_file(out), _numbers(indices), None
    if os.path.isdir(os.path.expanduser(recipe)):
        folder = RunFolder.for_reading(Path(recipe))
        checked = folder.recipe(overrides, plugins, needs=("data", "views"))
    else:
        checked = read_recipe(recipe, overrides, plugins=plugins)
    batch_size = checked.training.batch_size
    with user_errors():
        mixture, views = open_mixture(checked), build_views(checked)
        if folder is not None:
            check_same_files(checked, mixture, folder)
        check_channels(checked, mixture, views)
        sheet = draw_views(mixture, views, checked.seed, batch_size, np.array(wanted, np.int64))
    with writing(out) as path:
        sheet.save(path)
    steps = sorted({index // batch_size for index in wanted})
    count = len(set(wanted))
    images = "1 image" if count == 1 else f"{count} images"
    shown, last = ", ".join(map(str, steps[:-1])), steps[-1]
    which = f"step {last}" if len(steps) == 1 else f"steps {shown} and {last}"
    return f"{out} shows {images} that training uses in {which}, with {'its' if count == 1 else 'their'} views"


def _numbers(text: str) -> list[int]:
    numbers: list[int] = []
    for word in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,18})(?:\s*-\s*(\d{1,18}))?\s*", word)
        first, last = (int(n) for n in (found[1], found[2] or found[1])) if found else (0, -1)
        if last < first:
            raise RunError(
                f"--indices must be numbers of at most 18 digits and ranges, for example 0-7,40; got {text!r}"
            )
        if len(numbers) + last - first >= MOST_ROWS:
            raise RunError(f"--indices may name at most {MOST_ROWS} images")
        numbers.extend(range(first, last + 1))
    return numbers


def draw_views(
    mixture: Mixture, views: Views, seed: int, batch_size: int, indices: NDArray[np.int64] | None = None
) -> Image.Image:
    """Draw one image per row (the first of training, or `indices`: int64[n]): original, paired image if any, views.

    At most ten views, each at least 128 px, made as in the training steps of these images.
    """
    indices = np.arange(min(ROWS, batch_size)) if indices is None else np.unique(indices)
    steps = np.unique(indices // batch_size)
    parts = [_columns(mixture, views, seed, batch_size, indices[indices // batch_size == step]) for step in steps]
    columns = [(title, [cell for part in parts for cell in part[c][1]]) for c, (title, _) in enumerate(parts[0])]
    originals = len(columns) - sum(count for count, _ in views.shape)
    columns = columns[: MOST_VIEWS + originals]
    width, height = len(columns) * (CELL + GAP) + GAP, len(indices) * (CELL + GAP) + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    write = ImageDraw.Draw(sheet)
    for column, (title, cells) in enumerate(columns):
        left = GAP + column * (CELL + GAP)
        write.text((left + 2, 5), title, fill="black")
        for row, cell in enumerate(cells):
            image = Image.fromarray(cell)
            larger = image.width < CELL
            image = image.resize((CELL, CELL), Image.Resampling.NEAREST if larger else Image.Resampling.BILINEAR)
            sheet.paste(image, (left, MARGIN + row * (CELL + GAP)))
    for row, index in enumerate(indices):
        corner = GAP + 3, MARGIN + row * (CELL + GAP) + 3
        write.rectangle(write.textbbox(corner, str(index)), fill="white")
        write.text(corner, str(index), fill="black")
    return sheet


def _columns(
    mixture: Mixture, views: Views, seed: int, batch_size: int, indices: NDArray[np.int64]
) -> list[tuple[str, list[NDArray[np.uint8]]]]:
    """Titles and cells for images of one step."""
    images = mixture.read(indices)
    images = images if mixture.fixed_size else images.as_lists()
    host = images.on_host()
    step, positions = int(indices[0]) // batch_size, indices % batch_size
    batch = views.prepare(images.pixels, seed, step, positions, images.paired_images, batch_size, masked=images.masked)
    columns = [("original", [whole(p) for p in host.pixels])]
    if host.paired_images is not None:
        columns.append(("paired image", [whole(p) for p in host.paired_images]))
    originals = len(columns)
    for group in views(batch):
        size = f"{group.shape[-1]} px" if views.channels == 3 else f"{group.shape[-3]} x {group.shape[-1]} px"
        for view in group:
            columns.append((f"view {len(columns) - originals + 1}: {size}", list(shown(view, views))))
    return columns


def whole(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image uint8[H, W, C] padded with white to a square: uint8[CELL, CELL, 3]."""
    original = Image.fromarray(_three(np.asarray(image)))
    scale = CELL / max(original.size)
    sides = tuple(max(1, round(side * scale)) for side in original.size)
    fitted = original.resize(sides, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
    cell = Image.new("RGB", (CELL, CELL), "white")
    cell.paste(fitted, ((CELL - sides[0]) // 2, (CELL - sides[1]) // 2))
    return np.asarray(cell)


def shown(view: Tensor, views: Views) -> NDArray[np.uint8]:
    """Normalized views float[n, C, S, S] as images uint8[n, S, S, 3]: the first three channels, or the first as gray.

    Local intensity orders are four gray quarters [n, 2 S, 2 S, 3], scaled image by image: minimum black, maximum white.
    """
    pixels = view.permute(0, 2, 3, 1).float().cpu().numpy()
    if views.intensity_order is None:
        mean, std = (np.array(numbers, np.float32) for numbers in views.normalization)
        pixels = _three(pixels * std + mean)
    else:
        n, size = pixels.shape[:2]
        pixels = pixels.reshape(n, size, size, 2, 2).transpose(0, 3, 1, 4, 2).reshape(n, 2 * size, 2 * size, 1)
        least, most = (extreme(pixels, axis=(1, 2, 3), keepdims=True) for extreme in (np.min, np.max))
        pixels = np.repeat((pixels - least) / np.maximum(most - least, 1e-6), 3, axis=-1)
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8)


def _three(pixels: NDArray) -> NDArray:
    """[…, C] -> […, 3]: the first three channels; of fewer, the first as gray."""
    return pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)
