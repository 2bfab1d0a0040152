"""The first layer's filters of a run's backbone, as a grid of small color images."""

import base64
import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wildfern.bounded_json import parse_json
from wildfern.files import open_reading

BACKBONE = "backbone.safetensors"
MOST_HEADER = 16 * 2**20
MOST_WEIGHT = 64 * 2**20
MOST_FILTERS = 256
LEAST_SIDE, MOST_SIDE = 3, 64  # pixels of a filter
COLUMNS, GAP = 16, 1
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def first_filters(folder: Path) -> tuple[str, NDArray[np.float32]] | None:
    """Name and values float32[F, 3, k, k'] of the first weight that takes color images, with k, k' ≥ 3; None if there is none.

    That is the first convolution, or the patch embedding of a vision transformer. Only its bytes are read. Raises ValueError for
    a damaged file, OSError for one that cannot be read; a missing file is None.
    """
    try:
        file = open_reading(folder / BACKBONE)
    except FileNotFoundError:
        return None
    with file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= MOST_HEADER:
            raise ValueError(f"{BACKBONE} is damaged")
        header = parse_json(file.read(length))
        for name, entry in header.items() if isinstance(header, dict) else ():
            shape, kind = (entry.get("shape"), entry.get("dtype")) if isinstance(entry, dict) else (None, None)
            if not (isinstance(shape, list) and len(shape) == 4 and all(type(side) is int for side in shape)):
                continue
            sides = shape[2:]
            if shape[0] < 1 or shape[1] != 3 or not all(LEAST_SIDE <= side <= MOST_SIDE for side in sides):
                continue
            return name, _weight(file, 8 + length, entry, shape, str(kind))
    return None


def _weight(file: io.BufferedIOBase, start: int, entry: dict, shape: list[int], kind: str) -> NDArray[np.float32]:
    offsets = entry.get("data_offsets")
    size = math.prod(shape) * np.dtype(TYPES[kind]).itemsize if kind in TYPES else -1
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(one) is int for one in offsets)):
        raise ValueError(f"{BACKBONE} is damaged")
    if offsets[0] < 0 or offsets[1] - offsets[0] != size or size > MOST_WEIGHT:
        raise ValueError(f"{BACKBONE} is damaged, or its first filters are of the type {kind[:20]}")
    file.seek(start + offsets[0])
    content = file.read(size)
    if len(content) != size:
        raise ValueError(f"{BACKBONE} is damaged")
    values = np.frombuffer(content, TYPES[kind]).reshape(shape)
    if kind == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def filters_png(filters: NDArray[np.float32]) -> tuple[str, int, int]:
    """The first filters as a PNG data URI, and its width and height: zero is gray, the largest value of each filter is 0 or 1."""
    shown = np.nan_to_num(filters[:MOST_FILTERS], posinf=0.0, neginf=0.0)
    largest = np.abs(shown).max((1, 2, 3), keepdims=True)
    tiles = (shown / np.where(largest > 0, largest, 1) * 127.5 + 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1)
    count, height, width = tiles.shape[:3]
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    grid = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4), np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (number // columns) * (height + GAP), (number % columns) * (width + GAP)
        grid[top : top + height, left : left + width, :3] = tile
        grid[top : top + height, left : left + width, 3] = 255
    content = io.BytesIO()
    Image.fromarray(grid).save(content, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}", grid.shape[1], grid.shape[0]
