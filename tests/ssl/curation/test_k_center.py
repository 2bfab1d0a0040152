"""Greedy k-center against the plain loop, and its guarantee against all choices."""

from itertools import combinations

import numpy as np
import pytest
import torch

from wildfern.ssl.curation.k_center import covering_radius, k_center
from wildfern.ssl.data import DataError


def random_features(n=60, dim=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, dim)))


def by_loop(features, count, first, groups=None, quotas=None):
    x, chosen = features.numpy(), list(first)
    while len(chosen) < count:
        best, farthest = None, -1.0
        for i in range(len(x)):
            group = None if groups is None else groups[i]
            full = quotas is not None and group in quotas and sum(groups[c] == group for c in chosen) >= quotas[group]
            distance = min(float(np.linalg.norm(x[i] - x[c])) for c in chosen)
            if i not in chosen and not full and distance > farthest:
                best, farthest = i, distance
        chosen.append(best)
    return chosen


def radius_by_loop(features, chosen):
    x = features.numpy()
    return max(min(float(np.linalg.norm(x[i] - x[c])) for c in chosen) for i in range(len(x)))


@pytest.mark.parametrize("count", [1, 2, 10, 60])
@pytest.mark.parametrize("start", [5, [5], [5, 6, 50]])
def test_the_choice_and_its_radius_match_the_plain_loop(count, start):
    features = random_features()
    first = np.atleast_1d(start)[:count].tolist()
    chosen = k_center(features, count, start=first)
    assert chosen.dtype == torch.int64
    assert chosen.tolist() == by_loop(features, count, first)
    assert covering_radius(features, chosen) == pytest.approx(radius_by_loop(features, chosen.tolist()), abs=1e-12)


@pytest.mark.parametrize("as_array", [False, True])
def test_quotas_match_the_plain_loop(as_array):
    features = random_features()
    groups = np.random.default_rng(1).integers(-1, 4, 60)
    quotas = {0: 2, 1: 0, 2: 30, 3: 1} if as_array else {0: 2, 1: 0, 3: 1}
    start = int(np.flatnonzero(groups == 0)[0])
    chosen = k_center(features, 20, groups=groups, quotas=[2, 0, 30, 1] if as_array else quotas, start=start)
    assert chosen.tolist() == by_loop(features, 20, [start], groups.tolist(), quotas)
    counts = {group: int((groups[chosen] == group).sum()) for group in range(-1, 4)}
    assert (counts[0], counts[1], counts[3]) == (2, 0, 1)
    assert counts[-1] + counts[2] == 17
    most = sum(min(quotas.get(group, 60), int((groups == group).sum())) for group in range(-1, 4))
    assert len(set(k_center(features, most, groups=torch.from_numpy(groups), quotas=quotas).tolist())) == most
    with pytest.raises(
        DataError, match=f"count must be in 1 … {most}, the number of images within the quotas, of 60, got"
    ):
        k_center(features, most + 1, groups=groups, quotas=quotas)


@pytest.mark.parametrize("seed", range(6))
def test_the_radius_is_at_most_twice_the_smallest(seed):
    features = random_features(12, 2, seed)
    for count in (1, 2, 3, 4):
        smallest = min(radius_by_loop(features, chosen) for chosen in combinations(range(12), count))
        greedy = covering_radius(features, k_center(features, count, seed=seed))
        assert smallest - 1e-12 <= greedy <= 2 * smallest + 1e-12


def test_three_far_clusters_get_one_row_each():
    centers = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    features = centers.repeat_interleave(torch.tensor([500, 3, 40]), 0) + random_features(543, 2).float()
    chosen = k_center(features, 3, seed=1)
    assert sorted((chosen >= 500).long().add((chosen >= 503).long()).tolist()) == [0, 1, 2]
    assert covering_radius(features, chosen) < 10


def test_prefixes_agree_and_the_seed_draws_the_first_row():
    features = random_features()
    assert k_center(features, 20, seed=3)[:7].tolist() == k_center(features, 7, seed=3).tolist()
    firsts = {int(k_center(features, 1, seed=seed)) for seed in range(30)}
    assert len(firsts) > 10
    groups = np.arange(60) % 2
    assert all(int(k_center(features, 1, groups=groups, quotas={0: 0}, seed=seed)) % 2 for seed in range(20))


def test_duplicates_come_last_by_number():
    features = random_features(10).float().repeat(2, 1) * 1e-3 + 100
    chosen = k_center(features, 20, start=13).tolist()
    assert sorted(row % 10 for row in chosen[:10]) == list(range(10))
    assert chosen[10:] == sorted(chosen[10:])
    assert sorted(chosen) == list(range(20))
    assert covering_radius(features, chosen[:10]) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "count must be in 1 … 4, the number of images, got 0"),
        ({"count": 5}, "count must be in 1 … 4, the number of images, got 5"),
        ({"start": 4}, "start must be up to 2 different rows of 0 … 3, got"),
        ({"start": [1, 1]}, "start must be up to 2 different rows"),
        ({"start": [0, 1, 2]}, "start must be up to 2 different rows"),
        ({"groups": [0, 0, 1, 1]}, "groups and quotas need each other"),
        ({"quotas": {0: 1}}, "groups and quotas need each other"),
        ({"groups": [0, 0, 1], "quotas": {0: 1}}, "one for each of 4 images"),
        ({"groups": [0.0, 0, 1, 1], "quotas": {0: 1}}, "groups must be integers"),
        ({"groups": [0, 0, 1, 2], "quotas": [1, 1]}, "quotas has 2 groups, and groups has a number 2"),
        ({"groups": [0, 0, 1, 1], "quotas": {0: -1}}, "quotas must be whole numbers of 0 or more, for groups"),
        ({"groups": [0, 0, 1, 1], "quotas": {-1: 2}}, "for groups of 0 or more, got -1: 2"),
        ({"groups": [0, 0, 1, 1], "quotas": [0.5, 1.0]}, "quotas must be whole numbers"),
        (
            {"groups": [0, 0, 1, 1], "quotas": {0: 1}, "start": [0, 1]},
            "start has more rows of group 0 than its quota, 1",
        ),
    ],
)
def test_impossible_choices_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        k_center(random_features(4), **{"count": 2, **settings})


def test_a_radius_needs_a_chosen_row():
    with pytest.raises(DataError, match="at least one chosen row"):
        covering_radius(random_features(4), torch.zeros(0, dtype=torch.int64))
