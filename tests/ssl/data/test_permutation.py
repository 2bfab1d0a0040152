"""The computed permutation: every item once per epoch, another order in every epoch, and no memory."""

import numpy as np
import pytest

from wildfern.ssl.data import permuted


@pytest.mark.parametrize("num_items", [1, 2, 3, 5, 63, 64, 65, 1000, 1797, 4097])
@pytest.mark.parametrize("seed", [0, 7])
def test_every_epoch_is_a_bijection(num_items, seed):
    epochs, items = permuted(np.arange(3 * num_items), num_items, seed)
    np.testing.assert_array_equal(epochs, np.repeat([0, 1, 2], num_items))
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(items[epochs == epoch]), np.arange(num_items))


def test_each_epoch_and_seed_has_its_own_order():
    items = permuted(np.arange(2000), 1000, 0)[1]
    other = permuted(np.arange(1000), 1000, 1)[1]
    assert (items[:1000] == items[1000:]).mean() < 0.01
    assert (items[:1000] == other).mean() < 0.01


def test_an_index_gives_the_same_item_alone_and_in_a_batch():
    indices = np.array([5, 10**12 + 3, 0, 999_999, 5])
    together = permuted(indices, 123_456, 9)
    for row, index in enumerate(indices):
        alone = permuted([index], 123_456, 9)
        assert (alone[0][0], alone[1][0]) == (together[0][row], together[1][row])


def test_a_billion_items_need_no_memory():
    for num_items in (10**9, 10**9 + 7, 2**40 + 1):
        indices = np.arange(5 * num_items - 50, 5 * num_items + 50)
        epochs, items = permuted(indices, num_items, 3)
        assert epochs.tolist() == [4] * 50 + [5] * 50
        assert items.min() >= 0
        assert items.max() < num_items
        assert len(set(items[:50].tolist())) == 50


@pytest.mark.parametrize("num_items", [3, 5, 10, 100])
def test_each_item_is_equally_frequent_at_each_position(num_items):
    epochs = 20_000 // num_items * 5
    items = permuted(np.arange(epochs * num_items), num_items, 0)[1].reshape(epochs, num_items)
    for place in (0, num_items // 2, num_items - 1):
        counts = np.bincount(items[:, place], minlength=num_items)
        chi_square = ((counts - epochs / num_items) ** 2 / (epochs / num_items)).sum()
        assert chi_square < num_items - 1 + 5 * np.sqrt(2 * (num_items - 1))


def test_neighbors_are_scattered():
    items = permuted(np.arange(10_000), 10_000, 0)[1]
    # |a - b| of two independent uniform draws from [0, 1) has mean 1/3 and variance 1/18
    assert np.abs(np.diff(items)).mean() / 10_000 == pytest.approx(1 / 3, abs=0.015)


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="at least one item"):
        permuted([0], 0, 0)
    with pytest.raises(ValueError, match="indices must be 0 or more"):
        permuted([-1], 5, 0)
