"""Series in bounded memory: short ones as they are, long ones against numpy on all of their values."""

import statistics
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from wildfern.ssl.evaluation.report.downsampling import Downsampling, Series

MOST = 100


def collected(steps, values, most=MOST, at_once=64):
    found = Downsampling(most)
    for place, (step, value) in enumerate(zip(steps, values, strict=True)):
        found.steps.append(step)
        found.values.append(value)
        if place % at_once == at_once - 1:
            found.settle()
    return found.series()


def noisy(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.integers(1, 9, count)).tolist(), rng.standard_normal(count).tolist()


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 93])
def test_a_short_series_is_the_last_value_of_each_step_in_order(count):
    rng = np.random.default_rng(count)
    steps, values = rng.integers(0, 60, count).tolist(), rng.standard_normal(count).tolist()
    by_step = dict(zip(steps, values, strict=True))
    assert collected(steps, values) == Series(sorted(by_step), [by_step[step] for step in sorted(by_step)])


@pytest.mark.parametrize("count", [94, 95, 100, 129, 1000, 5432])
@pytest.mark.parametrize("at_once", [1, 64, 10**6])
def test_ends_extremes_and_figures_of_a_long_series_are_those_of_all_values(count, at_once):
    steps, values = noisy(count)
    found = collected(steps, values, at_once=at_once)
    points = list(zip(found.steps, found.values, strict=True))
    everything = list(zip(steps, values, strict=True))
    assert len(points) < MOST
    assert found.steps == sorted(set(found.steps))
    assert (points[0], points[-1]) == (everything[0], everything[-1])
    for extreme in (min, max):
        assert extreme(points, key=lambda one: one[1]) == extreme(everything[1:], key=lambda one: one[1])
    spans = [steps[0] + 1, *(b - a for a, b in pairwise(steps))]
    assert found.total() == pytest.approx(sum(value * span for value, span in zip(values, spans, strict=True)))


def test_the_first_value_stays_and_is_no_extreme_of_the_others():
    values = [-50.0, *noisy(999)[1]]
    found = collected(range(1000), values)
    assert (found.steps[0], found.values[0]) == (0, -50)
    assert min(found.values[1:]) == min(values[1:])


@pytest.mark.parametrize("count", [1024, 1025, 3000])
@pytest.mark.parametrize("at_once", [1, 63, 64, 10**6])
def test_the_other_points_are_means_of_equal_numbers_of_neighbors(count, at_once):
    steps, values = list(range(count)), noisy(count)[1]
    found = collected(steps, values, at_once=at_once)
    size = 1
    while -(-count // size) >= MOST - 5:
        size *= 2
    parts = [slice(start, start + size) for start in range(0, count, size)]
    expected = {statistics.mean(steps[part]): statistics.mean(values[part]) for part in parts}
    for place in (0, int(np.argmin(values[1:])) + 1, int(np.argmax(values[1:])) + 1, count - 1):
        expected[place] = values[place]
    assert dict(zip(found.steps, found.values, strict=True)) == pytest.approx(expected)


def test_a_spike_shows_with_its_step():
    values = [1.0] * 5000
    values[3217] = 90.0
    found = collected(range(5000), values)
    assert found.values[found.steps.index(3217)] == max(found.values) == 90
    assert collected(range(10), [1.0] * 9 + [90.0]).median() == found.median() == 1


def test_the_median_is_that_of_values_at_equal_intervals():
    values = np.random.default_rng(1).permutation(30_000).tolist()
    assert collected(range(30_000), values, most=10_000).median() == pytest.approx(statistics.median(values), rel=0.05)
    short = collected(range(90), values[:90])
    assert short.median() == statistics.median(values[:90])


def test_a_neighboring_value_of_the_same_step_is_replaced_also_in_a_long_series():
    steps, values = noisy(3000)
    twice = [step for step in steps for _ in range(2)]
    wrong_first = [one for value in values for one in (1e9, value)]
    once = collected(steps, values)
    for at_once in (63, 64):
        found = collected(twice, wrong_first, at_once=at_once)
        assert (found.steps, found.values, found.median()) == (once.steps, once.values, once.median())
        assert found.total() == pytest.approx(once.total())


@pytest.mark.parametrize("back", [1, 50, 500])
def test_steps_that_go_back_stay_in_order_and_within_bounds(back):
    steps = [*range(1000), *range(1000 - back, 1000), *range(back)]
    found = collected(steps, [float(step) for step in steps])
    assert found.steps == found.values == sorted(set(found.steps))
    assert (found.steps[0], found.steps[-1]) == (0, 999)
    assert len(found.steps) < MOST
    assert found.total() == pytest.approx(sum(range(1000)))  # each step counts once


def test_200_000_values_take_the_memory_of_the_points_that_are_kept():
    tracemalloc.start()
    collecting = Downsampling(10_000)
    for start in range(0, 200_000, 1000):
        collecting.steps.extend(range(start, start + 1000))
        collecting.values.extend(float(step % 7) for step in range(start, start + 1000))
        collecting.settle()
    found = collecting.series()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.steps) < 10_000
    assert found.total() == sum(step % 7 for step in range(200_000))
    assert peak < 2.5e6  # all values and steps: 3.2 MB, and as much again while arrays grow
