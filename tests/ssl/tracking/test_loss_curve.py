import math

import pytest

from wildfern.ssl.tracking.loss_curve import LossCurve


def curve(losses, **arguments):
    made = LossCurve(**arguments)
    for loss in losses:
        made.append(loss)
    return made


def test_lowest_and_highest_get_the_outer_blocks():
    assert curve([8, 7, 6, 5, 4, 3, 2, 1]).sparkline(8) == "█▇▆▅▄▃▂▁"
    assert curve([1.0, 1.0, 1.0]).sparkline(5) == "▁▁▁"


def test_a_column_is_the_mean_of_its_stretch():
    assert curve([0, 2, 1, 1, 7, 9, 3, 5]).sparkline(4) == curve([1, 1, 8, 4]).sparkline(4)


@pytest.mark.parametrize("count", [7, 8, 100, 1000])
def test_long_runs_keep_their_shape_in_bounded_memory(count):
    made = curve([-float(i) for i in range(count)], stretches=8)
    line = made.sparkline(4)
    assert 2 <= len(line) <= 4
    assert list(line) == sorted(line, reverse=True)
    assert len(made._means) <= 8


def test_non_finite_losses_are_left_out():
    assert curve([2.0, math.nan, math.inf, 1.0]).sparkline(9) == "█▁"


@pytest.mark.parametrize("losses", [[], [1.0]])
def test_empty_curve_without_enough_losses(losses):
    assert curve(losses).sparkline(10) == ""


def test_the_last_column_is_the_mean_of_what_there_is_of_its_stretch():
    made = curve([*[0.0] * 8, 1.0, 3.0, 8.0], stretches=8)  # stretches of 2: four of zeros, one of 2, one of 8 so far
    assert made.sparkline(6) == curve([0, 0, 0, 0, 2, 8]).sparkline(6) == "▁▁▁▁▃█"
