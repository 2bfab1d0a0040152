"""Masks of patches: exact counts, their shapes, and independence of the other images."""

import numpy as np
import pytest
import torch

from wildfern.ssl.methods import Batch
from wildfern.ssl.methods.patch_masks import block_draws, block_masks, boxes, cell_masks


def uniform(n, numbers, step=0, first=0):
    batch = Batch.from_views([torch.zeros(1, n, 3, 4, 4)], step=step, positions=torch.arange(first, first + n))
    return batch.uniform("mask", numbers)


def test_boxes_are_the_rectangles_of_a_plain_loop():
    rng = np.random.default_rng(0)
    table = np.stack([rng.integers(0, 5, 20), rng.integers(0, 7, 20), rng.integers(0, 5, 20), rng.integers(0, 7, 20)])
    found = boxes(*torch.from_numpy(table), (5, 7)).view(20, 5, 7)
    for (top, left, height, width), one in zip(table.T, found, strict=True):
        expected = np.zeros((5, 7), bool)
        expected[top : top + height, left : left + width] = True
        np.testing.assert_array_equal(one.numpy(), expected)


@pytest.mark.parametrize(
    ("grid", "cell", "ratio", "hidden"), [((12, 12), 8 // 4, 0.6, 22), ((4, 6), 1, 0.5, 12), ((5, 5), 5, 0.3, 1)]
)
def test_cells_are_hidden_whole_in_an_exact_number(grid, cell, ratio, hidden):
    masks = cell_masks(uniform(50, 144), grid, cell, ratio)
    assert masks.shape == (50, grid[0] * grid[1])
    assert (masks.sum(dim=1) == hidden * cell**2).all()
    by_cell = masks.view(50, grid[0] // cell, cell, grid[1] // cell, cell)
    assert (by_cell == by_cell[:, :, :1, :, :1]).all()
    if hidden < grid[0] * grid[1] // cell**2:
        assert abs(masks.float().mean(dim=0) - hidden * cell**2 / masks.shape[1]).max() < 0.35  # no place is favored


@pytest.mark.parametrize("grid", [(14, 14), (6, 9), (4, 4)])
def test_blocks_hide_exactly_the_count_of_each_image(grid):
    patches = grid[0] * grid[1]
    counts = torch.arange(300) % (patches + 1)
    masks = block_masks(uniform(300, block_draws(grid)), grid, counts)
    assert torch.equal(masks.sum(dim=1), counts)
    assert (block_masks(uniform(20, block_draws(grid)), grid, patches // 2).sum(dim=1) == patches // 2).all()


def test_block_masks_are_blocks():
    """Most hidden patches have hidden neighbors, unlike in masks of single patches, and every place is hidden at times."""
    grid, count = (14, 14), 59
    masks = block_masks(uniform(200, block_draws(grid)), grid, count).view(200, *grid)
    beside = (masks[:, :, 1:] & masks[:, :, :-1]).sum((1, 2)).float() / count
    assert beside.mean() > 0.7  # single patches: about 0.28
    assert 0.01 < masks.float().mean(dim=0).min() < masks.float().mean(dim=0).max() < 0.7
    around = torch.nn.functional.avg_pool2d(masks.float()[:, None], 3, 1, 1, divisor_override=1)[:, 0]
    assert (masks & (around == 1)).sum((1, 2)).float().mean() < 1  # patches without a hidden neighbor


def test_a_mask_depends_on_its_own_image_and_step_alone():
    grid = (6, 6)
    whole = block_masks(uniform(8, block_draws(grid)), grid, 15)
    half = block_masks(uniform(4, block_draws(grid), first=4), grid, 15)
    assert torch.equal(whole[4:], half)
    assert not torch.equal(whole, block_masks(uniform(8, block_draws(grid), step=1), grid, 15))
    assert len({tuple(row.tolist()) for row in whole}) == 8


def test_impossible_masks_are_refused():
    with pytest.raises(ValueError, match="5 × 4 patches is not whole cells of 2 × 2"):
        cell_masks(torch.zeros(1, 99), (5, 4), 2, 0.5)
    with pytest.raises(ValueError, match=r"need 6 uniform numbers for each image, \[n, 6\], got \[2, 5\]"):
        cell_masks(torch.zeros(2, 5), (4, 6), 2, 0.5)
    with pytest.raises(ValueError, match="count must be 0 to 16, the number of patches, got 17"):
        block_masks(torch.zeros(1, 99), (4, 4), 17)
    with pytest.raises(ValueError, match="need 80 uniform numbers"):
        block_masks(torch.zeros(1, 79), (4, 4), 7)
