"""Complete linkage against a plain loop over sets."""

from itertools import combinations

import numpy as np
import pytest
import torch

from wildfern.ssl.curation.linkage import complete_linkage
from wildfern.ssl.curation.similar_pairs import similar_pairs
from wildfern.ssl.data import DataError


def by_loop(pairs, order):
    """Groups of the definition, item by item."""
    paired = {frozenset(pair) for pair in pairs}
    groups = []
    for item in order:
        for group in groups:
            if all(frozenset((item, member)) in paired for member in group):
                group.append(item)
                break
        else:
            groups.append([item])
    found = np.full(len(order), -1)
    for number, group in enumerate(group for group in groups if len(group) > 1):
        found[group] = number
    return found.tolist()


def linked(pairs, order):
    first, second = zip(*pairs, strict=True) if pairs else ([], [])
    groups = complete_linkage(first, second, len(order), order)
    assert groups.dtype == np.int64
    return groups.tolist()


def test_a_chain_is_not_one_group():
    chain = [(0, 1), (1, 2)]
    assert linked(chain, [0, 1, 2]) == [0, 0, -1]
    assert linked(chain, [2, 1, 0]) == [-1, 0, 0]
    assert linked(chain, [0, 2, 1]) == [0, 0, -1]  # the earliest group, although both would do
    assert linked([*chain, (0, 2)], [1, 2, 0]) == [0, 0, 0]


def test_groups_are_numbered_by_their_best_members():
    pairs = [(0, 1), (2, 3), (4, 5)]
    assert linked(pairs, [4, 6, 1, 3, 5, 2, 0]) == [1, 1, 2, 2, 0, 0, -1]


@pytest.mark.parametrize("density", [0.02, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("count", [1, 2, 12, 60])
def test_random_graphs_match_the_plain_loop(density, count):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        one, other = np.triu_indices(count, 1)
        chosen = rng.random(len(one)) < density
        pairs = [*zip(one[chosen].tolist(), other[chosen].tolist(), strict=True)]
        order = rng.permutation(count).tolist()
        expected = by_loop(pairs, order)
        assert linked(pairs, order) == expected
        # Repeated, turned round, in another order, and of an item with itself.
        messy = [*pairs, *[(b, a) for a, b in pairs[::2]], *pairs[:3], (0, 0)]
        assert linked([messy[i] for i in rng.permutation(len(messy))], order) == expected


def test_every_two_members_are_paired_and_no_two_groups_could_be_one():
    rng = np.random.default_rng(5)
    features = torch.from_numpy(rng.normal(size=(300, 3)))
    pairs = similar_pairs(features, 0.9)
    groups = complete_linkage(pairs.first, pairs.second, 300, np.arange(300))
    paired = np.zeros((300, 300), bool)
    paired[pairs.first.numpy(), pairs.second.numpy()] = True
    paired |= paired.T
    members = [np.flatnonzero(groups == number) for number in range(groups.max() + 1)]
    assert len(members) > 20
    for group in members:
        assert len(group) > 1
        assert paired[np.ix_(group, group)].sum() == len(group) * (len(group) - 1)
    alone = np.flatnonzero(groups == -1)
    assert not paired[np.ix_(alone, alone)].any()
    assert not any(paired[np.ix_(alone, group)].all(1).any() for group in members)
    assert not any(paired[np.ix_(one, other)].all() for one, other in combinations(members, 2))
    assert [int(group.min()) for group in members] == sorted(int(group.min()) for group in members)


def test_arrays_that_are_read_only_or_of_another_type_do():
    first, second, order = np.array([1, 0], np.int32), np.array([2, 3], np.uint8), np.arange(4)
    order.flags.writeable = False
    assert complete_linkage(first[::-1], second[::-1], 4, order).tolist() == [0, 1, 1, 0]
    assert complete_linkage(first, second, 4, order.astype(np.int16)).tolist() == [0, 1, 1, 0]


def test_no_items_are_no_groups():
    assert complete_linkage([], [], 0, []).tolist() == []
    assert complete_linkage([], [], 3, [2, 0, 1]).tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("first", "second", "order", "message"),
    [
        ([0], [3], [0, 1, 2], "pairs must name items 0 … 2, got 3 … 3"),
        ([-1], [1], [0, 1, 2], "pairs must name items 0 … 2, got -1 … -1"),
        ([0, 1], [2], [0, 1, 2], "got 2 first and 1 second"),
        ([0], [1], [0, 1], "order must be a permutation of the items 0 … 2"),
        ([0], [1], [0, 1, 1], "order must be a permutation of the items 0 … 2"),
        ([0.5], [1], [0, 1, 2], "items must be integers in one dimension, got float64"),
        ([[0]], [[1]], [0, 1, 2], "items must be integers in one dimension"),
    ],
)
def test_items_that_do_not_exist_are_refused(first, second, order, message):
    with pytest.raises(DataError, match=message):
        complete_linkage(first, second, 3, order)
