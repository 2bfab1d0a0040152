"""`views.png`: what the model sees, originals beside their views."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

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
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    columns = [("original", [square(np.asarray(p), CELL) for p in host.pixels])]
    if host.partners is not None:
        columns.append(("its partner", [square(np.asarray(p), CELL) for p in host.partners]))
    originals = len(columns)
    for group in views(batch):
        pixels = (group.permute(0, 1, 3, 4, 2).float().cpu().numpy() * std + mean).clip(0, 1)
        for view in (pixels * 255).round().astype(np.uint8):
            columns.append((f"view {len(columns) - originals + 1}: {view.shape[1]} px", list(view)))
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
