"""The order by blocks against a plain loop: every item once per epoch, a few blocks at a time, and no state."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from wildfern.generators.counter_rng import fold
from wildfern.ssl.data import DataError, permuted
from wildfern.ssl.data.block_order import BlockOrder
from wildfern.ssl.data.permutation import permuted_each

BLOCKS = {
    "equal": np.arange(0, 101, 10),
    "one": np.array([0, 7]),
    "of one item": np.arange(20),
    "uneven, some empty": np.array([0, 0, 3, 3, 3, 50, 51, 90, 90]),
}


def plain_loop(order: BlockOrder, epochs: int) -> list[int]:
    """The items of these epochs, one after the other."""
    items = []
    count = len(order.blocks) - 1
    for epoch in range(epochs):
        sequence = []
        for block in permuted(epoch * count + np.arange(count), count, order._block_seed)[1]:
            sequence += range(order.blocks[block], order.blocks[block + 1])
        for window, first in enumerate(range(0, len(sequence), order.buffer)):
            part = sequence[first : first + order.buffer]
            key = fold(fold(order._window_key, epoch), window)
            places = np.arange(len(part))
            if len(part) > 1:  # one item is where it is
                places = permuted_each(places, np.full(len(part), len(part)), np.repeat(key, len(part)))[1]
            items += [part[place] for place in places]
    return items


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("buffer", [1, 7, 30, 1000])
def test_items_are_those_of_the_plain_loop_and_each_comes_once_in_an_epoch(name, buffer):
    order = BlockOrder(BLOCKS[name], buffer, 3)
    size = order.num_items
    epochs, items = order.locate(np.arange(3 * size))
    assert items.tolist() == plain_loop(order, 3)
    np.testing.assert_array_equal(epochs, np.repeat([0, 1, 2], size))
    np.testing.assert_array_equal(np.sort(items.reshape(3, size), axis=1), np.tile(np.arange(size), (3, 1)))


def test_a_window_has_items_of_few_blocks_and_every_window_others():
    order = BlockOrder(np.arange(0, 10_001, 100), 250, 0)
    items = order.locate(np.arange(20_000))[1].reshape(2, 40, 250)
    for epoch in items:
        opened = [set((window // 100).tolist()) for window in epoch]
        assert max(len(blocks) for blocks in opened) <= 4
        assert len(set().union(*opened)) == 100
        inside = epoch[0].tolist()
        assert inside != sorted(inside)
    assert (items[0] == items[1]).mean() < 0.02
    assert (
        order.locate(np.arange(10_000))[1] == BlockOrder(order.blocks, 250, 1).locate(np.arange(10_000))[1]
    ).mean() < 0.02


def test_an_index_gives_the_same_item_alone_in_a_batch_and_in_threads():
    order = BlockOrder(np.cumsum([0, *range(1, 80)]), 500, 5)
    rng = np.random.default_rng(0)
    indices = np.concatenate([rng.integers(0, 40 * order.num_items, 100), [10**15 + 7, 0]])
    together = np.stack(order.locate(indices))
    alone = [[int(part[0]) for part in order.locate([index])] for index in indices]
    assert together.T.tolist() == alone
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: np.stack(order.locate(indices[start : start + 7])), range(0, 102, 7)))
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), together)
    assert len(order._layouts) <= 4


def test_a_billion_items_need_the_memory_of_their_blocks():
    order = BlockOrder(np.arange(0, 10**9 + 1, 10_000), 10_000, 1)
    items = order.locate(np.arange(3 * 10**9 - 20_000, 3 * 10**9))[1]
    assert len(np.unique(items)) == 20_000
    assert len(np.unique(items // 10_000)) == 2


@pytest.mark.parametrize("blocks", [[0], [0, 0], [1, 5], [0, 5, 3]])
def test_what_are_no_blocks_is_refused(blocks):
    with pytest.raises(DataError, match="blocks must start with item 0"):
        BlockOrder(np.array(blocks), 10, 0)


def test_impossible_arguments_are_refused():
    with pytest.raises(DataError, match="buffer must be 1 or more images, got 0"):
        BlockOrder([0, 5], 0, 0)
    with pytest.raises(ValueError, match="indices must be 0 or more"):
        BlockOrder([0, 5], 2, 0).locate([-1])


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("buffer", [1, 7, 30, 1000])
def test_upcoming_blocks_are_those_of_the_items_of_this_window_and_the_next(name, buffer):
    order = BlockOrder(BLOCKS[name], buffer, 3)
    size, count = order.num_items, len(order.blocks) - 1
    windows = []  # of two epochs: indices, and the first items of their blocks in the order of the epoch
    for epoch in range(2):
        turns = permuted(epoch * count + np.arange(count), count, order._block_seed)[1]
        sequence = [int(order.blocks[block]) for block in turns if order.blocks[block] < order.blocks[block + 1]]
        for first in range(0, size, buffer):
            indices = epoch * size + np.arange(first, min(size, first + buffer))
            blocks = np.searchsorted(order.blocks, order.locate(indices)[1], side="right") - 1
            inside = set(order.blocks[blocks].tolist())
            windows.append((indices, [start for start in sequence if start in inside]))
    for (indices, here), (_, after) in pairwise(windows):
        for index in (indices[0], indices[-1]):
            assert order.upcoming([indices[0], index]).tolist() == here + after
    assert order.upcoming([]).tolist() == []
