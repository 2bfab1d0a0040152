"""Worst accuracy, gap and standard deviation: values by numpy, intervals by their definition and by how often they are right."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import binomtest, ncx2

from wildfern.ssl.evaluation.metrics.accuracy_spread import PartAccuracy, accuracy_gap, accuracy_std, worst_accuracy


def parts(right, n) -> list[PartAccuracy]:
    return [
        PartAccuracy(chr(97 + at), int(count), int(hits)) for at, (hits, count) in enumerate(zip(right, n, strict=True))
    ]


RIGHT, N = [18, 7, 40, 0, 9], [20, 10, 50, 6, 9]


def exact(right, n, level):
    return [tuple(binomtest(k, m).proportion_ci(level, method="exact")) for k, m in zip(right, n, strict=True)]


def test_the_worst_part_and_bounds_that_hold_for_all_at_once():
    score = worst_accuracy("worst_class_accuracy", parts(RIGHT[:3], N[:3]), "classes", "first")
    bounds = exact(RIGHT[:3], N[:3], 1 - 0.05 / 3)
    assert (score.metric, score.value, score.n) == ("worst_class_accuracy", 0.7, 80)
    assert (score.low, score.high) == pytest.approx((min(low for low, _ in bounds), min(high for _, high in bounds)))
    assert score.detail.startswith("first; lowest of 3 classes: b, 7 of 10 right; 95 % interval from exact intervals")
    assert worst_accuracy("x", parts(RIGHT, N), "groups").low == 0


def test_the_gap_and_bounds_that_hold_for_all_pairs_at_once():
    score = accuracy_gap("gap", parts(RIGHT, N), "groups")
    bounds = exact(RIGHT, N, 1 - 0.05 / 10)
    p = [k / m for k, m in zip(RIGHT, N, strict=True)]
    lows, highs = [0.0], []
    for one, other in permutations(range(5), 2):
        below = np.hypot(p[one] - bounds[one][0], bounds[other][1] - p[other])
        above = np.hypot(bounds[one][1] - p[one], p[other] - bounds[other][0])
        lows.append(p[one] - p[other] - below)
        highs.append(p[one] - p[other] + above)
    assert (score.value, score.n) == (1, 95)
    assert (score.low, score.high) == pytest.approx((max(lows), min(1, max(highs))))
    assert score.detail.startswith("of 5 groups: e 100.0 %, d 0.0 %")


def test_the_standard_deviation_is_numpys_and_its_bounds_are_quantiles():
    score = accuracy_std("std", parts(RIGHT, N), "classes")
    p = np.array(RIGHT) / N
    assert (score.value, score.n) == (pytest.approx(np.std(p)), 95)
    smoothed = (np.array(RIGHT) + 0.5) / (np.array(N) + 1)
    noise = (smoothed * (1 - smoothed) / N).mean()
    for bound, share in ((score.low, 0.975), (score.high, 0.025)):
        assert ncx2.cdf(5 * score.value**2 / noise, 4, 5 * bound**2 / noise) == pytest.approx(share)
    assert f"{100 * np.sqrt(noise * 4 / 5):.1f} points if all were equally accurate" in score.detail


def test_parts_that_are_equal_by_chance_may_differ():
    score = accuracy_std("std", parts([8, 8, 8], [10, 10, 10]), "classes")
    noise = 8.5 / 11 * 2.5 / 11 / 10
    assert (score.value, score.low) == pytest.approx((0, 0), abs=1e-9)
    assert ncx2.cdf(2, 2, 3 * score.high**2 / noise) == pytest.approx(0.025)


@pytest.mark.parametrize("true", [np.full(12, 0.8), np.linspace(0.5, 0.95, 12), np.array([0.9, 0.6])], ids=str)
def test_intervals_have_the_true_value_as_often_as_they_say(true):
    rng, n, sets = np.random.default_rng(1), np.full(len(true), 60), 150
    statistics = {worst_accuracy: true.min(), accuracy_gap: np.ptp(true), accuracy_std: true.std()}
    found = dict.fromkeys(statistics, 0)
    for _ in range(sets):
        drawn = parts(rng.binomial(n, true), n)
        for score_of, value in statistics.items():
            score = score_of("x", drawn, "parts")
            assert score.low <= score.value <= score.high
            found[score_of] += score.low - 1e-9 <= value <= score.high + 1e-9
    # 0.9: 2.8 standard deviations below 0.95 for 150 sets
    assert all(count / sets >= 0.9 for count in found.values())


def test_one_part_has_no_spread():
    for score_of in (worst_accuracy, accuracy_gap, accuracy_std):
        with pytest.raises(ValueError, match="two parts of the test images or more, got 1"):
            score_of("x", parts([1], [2]), "groups")
