"""`views.png`: what the model sees, originals beside their views."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from wildfern.ssl.augmentation import MEAN, STD, Prepared, Views
from wildfern.ssl.data import Mixture, square

CELL, GAP, MARGIN = 128, 4, 22
ROWS, MOST_VIEWS = 8, 10


def write_views_picture(path: Path, mixture: Mixture, views: Views, seed: int) -> None:
    """The first pictures of step 0, one a row: original, partner if any, views (at most ten), at least 128 px each."""
    indices = np.arange(ROWS)
    images = mixture.read(indices)
    images = images if mixture.fixed_size else images.as_lists()
    host = images.on_host()
    batch: Prepared = views.prepare(images.pixels, seed, 0, indices, images.partners)
    columns = [("original", [square(np.asarray(p), CELL) for p in host.pixels])]
    if host.partners is not None:
        columns.append(("its partner", [square(np.asarray(p), CELL) for p in host.partners]))
    originals = len(columns)
    for group in views(batch):
        size = f"{group.shape[-1]} px" if views.channels == 3 else f"{views.channels} x {group.shape[-1]} px"
        for view in group:
            columns.append((f"view {len(columns) - originals + 1}: {size}", list(shown(view))))
    columns = columns[: MOST_VIEWS + originals]
    width, height = len(columns) * (CELL + GAP) + GAP, ROWS * (CELL + GAP) + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    write = ImageDraw.Draw(sheet)
    for column, (title, cells) in enumerate(columns):
        left = GAP + column * (CELL + GAP)
        write.text((left + 2, 5), title, fill="black")
        for row, cell in enumerate(cells):
            picture = Image.fromarray(cell)
            larger = picture.width < CELL
            picture = picture.resize((CELL, CELL), Image.Resampling.NEAREST if larger else Image.Resampling.BILINEAR)
            sheet.paste(picture, (left, MARGIN + row * (CELL + GAP)))
    sheet.save(path)


def shown(views: Tensor) -> NDArray[np.uint8]:
    """Normalized views float[n, 3, S, S] as pictures uint8[n, S, S, 3]; four channels as gray quarters [n, 2 S, 2 S, 3].

    Of the latter, the least value of a view is black and its greatest white: it is standardized, picture by picture.
    """
    pixels = views.permute(0, 2, 3, 1).float().cpu().numpy()
    if pixels.shape[-1] == 3:
        pixels = pixels * np.array(STD, np.float32) + np.array(MEAN, np.float32)
    else:
        n, size = pixels.shape[:2]
        pixels = pixels.reshape(n, size, size, 2, 2).transpose(0, 3, 1, 4, 2).reshape(n, 2 * size, 2 * size, 1)
        least, most = (extreme(pixels, axis=(1, 2, 3), keepdims=True) for extreme in (np.min, np.max))
        pixels = np.repeat((pixels - least) / np.maximum(most - least, 1e-6), 3, axis=-1)
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8)
