"""Random masks of a vision transformer's patches, as functions of uniform numbers: square cells (SimMIM) and blocks (BEiT).

Pass numbers of `Batch.uniform`: the masks are then the same on any number of ranks and after resuming.
"""

import math

import torch
from torch import Tensor

ATTEMPTS = 16  # blocks drawn for each image; those that would hide too many patches are passed over


def cell_masks(uniform: Tensor, grid: tuple[int, int], cell: int, ratio: float) -> Tensor:
    """Masks bool[n, T] of a grid (rows, columns) of T patches, True where hidden: ⌈ratio · cells⌉ of its square cells.

    A cell has `cell` × `cell` patches; uniform: float[n, cells]. Xie et al., 2022, section 3.2: cells of 32 px and a ratio of
    0.6. Raises ValueError for a grid that is not whole cells, and if `uniform` is too small.
    """
    rows, columns = grid[0] // cell, grid[1] // cell
    if (rows * cell, columns * cell) != tuple(grid):
        raise ValueError(f"a grid of {grid[0]} × {grid[1]} patches is not whole cells of {cell} × {cell} patches")
    _check_draws(uniform, rows * columns)
    hidden = math.ceil(round(ratio * rows * columns, 6))  # 0.6 * 5 is 3, not the 4 of its rounding error
    chosen = _smallest(uniform[:, : rows * columns], hidden)
    by_place = chosen.view(-1, rows, 1, columns, 1).expand(-1, -1, cell, -1, cell)
    return by_place.reshape(len(uniform), -1)


def block_draws(grid: tuple[int, int]) -> int:
    """How many uniform numbers `block_masks` needs for each image."""
    return 4 * ATTEMPTS + grid[0] * grid[1]


def block_masks(
    uniform: Tensor, grid: tuple[int, int], count: int | Tensor, *, least: int = 4, aspect: float = 0.3
) -> Tensor:
    """Masks bool[n, T] of a grid (rows, columns) of T patches, True where hidden: exactly `count` patches, mostly in blocks.

    uniform: float[n, K], K = `block_draws(grid)`; count: one number, or int64[n], 0 to T.
    A block's area is uniform between `least` and the number of patches still to hide, its aspect ratio log-uniform between
    `aspect` and its inverse (Bao et al., 2022, algorithm 1). The few patches that no further block fits are drawn alone.
    Raises ValueError if `count` or the size of `uniform` is impossible.
    """
    (rows, columns), device = grid, uniform.device
    if isinstance(count, int) and not 0 <= count <= rows * columns:
        raise ValueError(f"count must be 0 to {rows * columns}, the number of patches, got {count}")
    _check_draws(uniform, block_draws(grid))
    wanted = torch.as_tensor(count, device=device).expand(len(uniform))
    mask = torch.zeros(len(uniform), rows * columns, dtype=torch.bool, device=device)
    attempts = uniform[:, : 4 * ATTEMPTS].double().unflatten(1, (ATTEMPTS, 4))
    for size, shape, down, right in attempts.permute(1, 2, 0):
        area = least + size * (wanted - mask.sum(dim=1) - least).clamp_min(0)
        ratio = (math.log(aspect) * (1 - 2 * shape)).exp()
        height, width = ((area * r).sqrt().round().clamp_min(1).long() for r in (ratio, 1 / ratio))
        top, left = (
            (u * (side - size + 1)).long() for u, side, size in ((down, rows, height), (right, columns, width))
        )
        grown = mask | boxes(top, left, height, width, grid)
        fits = (height < rows) & (width < columns) & (grown.sum(dim=1) <= wanted)
        mask = torch.where(fits[:, None], grown, mask)
    return _smallest(torch.where(mask, -1.0, uniform[:, 4 * ATTEMPTS : block_draws(grid)]), wanted)


def boxes(top: Tensor, left: Tensor, height: Tensor, width: Tensor, grid: tuple[int, int]) -> Tensor:
    """bool[..., T]: the patches of a grid (rows, columns) inside rectangles, given by int64[...] in patches."""
    sides = []
    for start, length, side in ((top, height, grid[0]), (left, width, grid[1])):
        line = torch.arange(side, device=start.device)
        sides.append((line >= start[..., None]) & (line < (start + length)[..., None]))
    return (sides[0][..., :, None] & sides[1][..., None, :]).flatten(-2)


def _smallest(values: Tensor, count: int | Tensor) -> Tensor:
    """bool[n, T]: the `count` (int64[n]) smallest of each row; of equal ones the first."""
    rank = values.argsort(dim=1, stable=True).argsort(dim=1)
    return rank < (count[:, None] if isinstance(count, Tensor) else count)


def _check_draws(uniform: Tensor, needed: int) -> None:
    if uniform.ndim != 2 or uniform.shape[1] < needed:
        raise ValueError(
            f"masks need {needed} uniform numbers for each image, [n, {needed}], got {list(uniform.shape)}"
        )
