"""Lower bounds on the cost of views, against counts by hand."""

import dataclasses

import pytest

from wildfern.benchmarks.view_floor import Cost, Speeds, crop_cost, mean_cost, view_cost
from wildfern.ssl.augmentation import simclr

WHOLE = dict(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))


def view(size, **settings):
    return simclr(size=size, **settings).groups[0][0]


def test_a_crop_of_its_own_size_has_two_taps_each_way():
    assert crop_cost(view(32, **WHOLE), 32, 32) == Cost(3 * 32**2, 3 * 32**2, 32**2 * (7 * 2 + 3 * 2))


def test_a_crop_three_times_as_large_has_six_taps_and_three_rows_for_each_of_its_own():
    assert crop_cost(view(32, **WHOLE), 96, 96) == Cost(3 * 96**2, 3 * 32**2, 32**2 * (7 * 6 * 3 + 3 * 6))


def test_each_operation_of_the_chain_counts_as_often_as_it_happens():
    plain = view(100, **WHOLE, jitter=0, gray=0, blur=0)
    least = view_cost(plain, 100, 100)
    assert least == Cost(3 * 100**2, 12 * 100**2, 100**2 * (20 + 3))
    for change, operations in [
        ({"jitter": 0.5}, 39.5),
        ({"gray": 0.2}, 0.6),
        ({"solarize": 0.5}, 3),
        (
            {"blur": 0.5, "blur_sigma": (2.0, 2.0)},
            0.5 * (6 + 12 * 5),
        ),  # a kernel of a tenth of the side: 5 pixels on a side
        ({"blur": 1.0, "blur_sigma": (0.4, 0.4)}, 6 + 12 * 2),  # the third pixel weighs less than 1e-7
    ]:
        cost = view_cost(dataclasses.replace(plain, **change), 100, 100)
        assert cost.operations - least.operations == pytest.approx(100**2 * operations)


def test_the_lower_bound_adds_the_time_of_bytes_and_of_operations():
    costs = [Cost(1e6, 3e6, 8e6), Cost(3e6, 5e6, 16e6)]
    assert mean_cost(costs) == Cost(2e6, 4e6, 12e6)
    assert Speeds(bytes=1e9, operations=2e9).seconds(costs[0]) == pytest.approx(0.004 + 0.004)
