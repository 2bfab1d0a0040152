"""Multi-block masks (I-JEPA: Assran et al., 2023, section 3): several target blocks, and a context block without them.

All images of a step have blocks of the same size, drawn from seed and step, and context of the same number of patches. The
authors shorten every context to the smallest one in the batch, which depends on the other images; here the number depends on the
sizes of the blocks alone, so that a mask is a function of its own image on any number of ranks.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.ssl.methods.patch_masks import boxes

PLACINGS = 8  # of the blocks drawn for each image: the first one with enough context is taken
RARE = 0.01  # share of placings with too little context: about the smallest context among 100 images
_SIMULATED = 4096  # placings from which that number of patches is found

Size = tuple[int, int]  # height and width in patches
Range = tuple[float, float]


class BlockSizes(NamedTuple):
    """Height and width of a step's blocks in patches; `visible` patches of each image are its context."""

    target: Size
    context: Size
    visible: int


class MultiBlock(NamedTuple):
    """Numbers of patches of n images: `context` int64[n, visible], `targets` int64[n, B, patches of a block]."""

    context: Tensor
    targets: Tensor


def draw_sizes(
    seed: int, step: int, grid: Size, targets: int, target_scale: Range, target_aspect: Range, context_scale: Range
) -> BlockSizes:
    """The sizes of a step's blocks: scales are shares of the grid's patches, aspect is height / width; a context is square.

    Raises ValueError if blocks of these sizes often leave no context.
    """
    draws = uniform(np.array([key("multi-block sizes", seed, step)], np.uint64), 3)[0]
    scale, aspect, context = (
        float(low + u * (high - low))
        for u, (low, high) in zip(draws, (target_scale, target_aspect, context_scale), strict=True)
    )
    return block_sizes(grid, targets, scale, aspect, context)


def block_sizes(
    grid: Size, targets: int, target_scale: float, target_aspect: float, context_scale: float
) -> BlockSizes:
    """Sizes of blocks with these scales and aspect ratio. Raises ValueError as `draw_sizes`."""
    target, context = _size(grid, target_scale, target_aspect), _size(grid, context_scale, 1.0)
    visible = _usually_visible(grid, target, context, targets)
    if visible < 1:
        raise ValueError(
            f"{targets} target blocks of {target[0]} × {target[1]} patches often leave no context in a grid of {grid[0]} × "
            f"{grid[1]}: use smaller patches, larger images, fewer target blocks or a smaller target_scale"
        )
    return BlockSizes(target, context, visible)


def multi_block_draws(grid: Size, targets: int) -> int:
    """How many uniform numbers `multi_block_masks` needs for each image."""
    return 2 * (targets + 1) * PLACINGS + grid[0] * grid[1]


def multi_block_masks(draws: Tensor, grid: Size, targets: int, sizes: BlockSizes) -> MultiBlock:
    """Blocks at uniform places, and `sizes.visible` random patches of the context block that are in no target block.

    draws: float[n, K], K = `multi_block_draws(grid, targets)`. Of `PLACINGS` placings, the first with enough context is taken;
    all have too little for about one image in 10¹⁶, whose context then has patches of targets.
    """
    places = draws[:, : 2 * (targets + 1) * PLACINGS].unflatten(1, (PLACINGS, targets + 1, 2))
    corners, visible = _place(places, grid, sizes.target, sizes.context)
    chosen = visible.sum(dim=-1).clamp_max(sizes.visible).argmax(dim=1)  # the first of equal ones
    image = torch.arange(len(draws), device=draws.device)
    order = torch.where(visible[image, chosen], 0.0, 1.0) + draws[:, -grid[0] * grid[1] :]
    context = order.argsort(dim=1, stable=True)[:, : sizes.visible]
    rows, columns = (torch.arange(side, device=draws.device) for side in sizes.target)
    inside = (rows[:, None] * grid[1] + columns).flatten()
    top, left = corners[image, chosen].unbind(-1)
    return MultiBlock(context, (top * grid[1] + left)[..., None] + inside)


def _place(places: Tensor, grid: Size, target: Size, context: Size) -> tuple[Tensor, Tensor]:
    """Top left corners int64[n, P, B, 2] of the targets, and bool[n, P, T]: patches of the context block outside of them.

    places: float[n, P, B + 1, 2] in [0, 1), the last for the context block.
    """

    def put(place: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        free = torch.tensor([side - length + 1 for side, length in zip(grid, size, strict=True)], device=places.device)
        corner = (place * free).long()
        height, width = (torch.full_like(corner[..., 0], length) for length in size)
        return corner, boxes(corner[..., 0], corner[..., 1], height, width, grid)

    corners, hidden = put(places[..., :-1, :], target)
    _, block = put(places[..., -1, :], context)
    return corners, block & ~hidden.any(dim=-2)


@lru_cache(maxsize=1024)
def _usually_visible(grid: Size, target: Size, context: Size, targets: int) -> int:
    """The number of context patches that all placings but the share `RARE` have at least."""
    keys = fold(np.array([key("multi-block context")], np.uint64), np.arange(_SIMULATED))
    places = torch.from_numpy(uniform(keys, 2 * (targets + 1))).view(_SIMULATED, 1, targets + 1, 2)
    counts = _place(places, grid, target, context)[1].sum(dim=-1).flatten().sort().values
    return int(counts[int(RARE * _SIMULATED)])


def _size(grid: Size, scale: float, aspect: float) -> Size:
    """Height and width in patches, 1 to the grid's, of a block with the share `scale` of the grid's patches."""
    area = int(scale * grid[0] * grid[1])
    height, width = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
    return min(max(height, 1), grid[0]), min(max(width, 1), grid[1])
