"""Precision and recall with a tolerance by a loop over pairs of pixels, and of shifted lines."""

import math

import numpy as np
import pytest

from wildfern.ssl.evaluation.metrics.overlap import overlap
from wildfern.ssl.evaluation.metrics.tolerant_overlap import tolerant_overlap


def images(seed, size=(11, 13)):
    rng = np.random.default_rng(seed)
    return (rng.random(size) < share for share in (0.08, 0.06, 0.6))


def share_near(pixels, others, tolerance):
    places, targets = np.argwhere(pixels), np.argwhere(others)
    near = [min(math.dist(place, target) for target in targets) <= tolerance for place in places]
    return sum(near) / len(near)


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2.0, math.sqrt(5), 3])
def test_it_is_the_loop_over_pairs(tolerance):
    for seed in range(3):
        predicted, mask, region = images(seed)
        for inside in (None, region):
            first, second = (predicted, mask) if inside is None else (predicted & inside, mask & inside)
            expected = [share_near(first, second, tolerance), share_near(second, first, tolerance)]
            found = tolerant_overlap(predicted, mask, tolerance, inside)
            assert list(found[:2]) == pytest.approx(expected)
            product, total = 2 * expected[0] * expected[1], sum(expected)
            assert found.f1 == pytest.approx(product / total if total else 0)


def test_without_tolerance_it_is_the_overlap():
    predicted, mask, region = images(4)
    plain, found = overlap(predicted, mask, region), tolerant_overlap(predicted, mask, 0, region)
    assert found == pytest.approx((plain.precision, plain.recall, plain.dice))


def test_a_line_may_be_off_by_two_pixels():
    mask, near, far = np.zeros((3, 12, 10), bool)
    mask[3], near[5], far[6] = True, True, True
    assert tolerant_overlap(near, mask) == (1, 1, 1)
    assert tolerant_overlap(far, mask) == (0, 0, 0)
    assert tolerant_overlap(near | far, mask) == (0.5, 1, pytest.approx(2 / 3))
    beside = np.ones_like(mask)
    beside[3] = False  # what lies outside of the region matches nothing
    assert tolerant_overlap(near, mask, region=beside) == (0, 0, 0)


def test_empty_and_full():
    none, some, full = np.zeros((5, 6), bool), np.eye(5, 6, dtype=bool), np.ones((5, 6), bool)
    assert tolerant_overlap(none, none) == tolerant_overlap(full, full) == (1, 1, 1)
    assert tolerant_overlap(none, some) == tolerant_overlap(some, none) == (0, 0, 0)
    assert tolerant_overlap(some, full, 0) == (1, 5 / 30, pytest.approx(10 / 35))


def test_what_is_no_distance_is_refused():
    mask = np.eye(4, dtype=bool)
    for tolerance in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="tolerance is a distance in pixels"):
            tolerant_overlap(mask, mask, tolerance)
    with pytest.raises(ValueError, match="of one image"):
        tolerant_overlap(mask, mask[1:])
