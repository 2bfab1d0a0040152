"""Blocks of rows, in which losses compute a matrix of all pairs that would be too large as a whole."""

import torch

# Numbers in one block: 1 MiB of float32, which a core's cache holds, or 64 MiB elsewhere, for few launches.
BLOCK = {"cpu": 2**18}
BLOCK_ELSEWHERE = 2**24
FEWEST_ROWS = 64  # of fewer rows a matrix product mostly reads the other matrix


def block_numbers(device: torch.device) -> int:
    """How many numbers a block on this device has, if rows are short enough."""
    return BLOCK.get(device.type, BLOCK_ELSEWHERE)


def row_blocks(rows: int, columns: int, device: torch.device) -> list[slice]:
    """Consecutive slices of `rows` rows, the first the longest: a block and its `columns` columns have about `BLOCK` numbers."""
    at_once = max(FEWEST_ROWS, block_numbers(device) // max(1, columns))
    return [slice(first, min(first + at_once, rows)) for first in range(0, rows, at_once)]


def images_of(rows: slice | None, images: int) -> slice:
    """`rows` with its bounds among this number of images, all of them for None. Raises ValueError for steps other than 1."""
    start, stop, step = (rows or slice(None)).indices(images)
    if step != 1:
        raise ValueError(f"rows must be consecutive images, without a step; got {rows}")
    return slice(start, max(start, stop))
