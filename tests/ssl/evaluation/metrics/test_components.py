"""Differences of numbers of components, which are counted by filling them."""

import numpy as np
import pytest

from wildfern.ssl.evaluation.metrics.components import component_error


def count_by_filling(mask):
    left = set(map(tuple, np.argwhere(mask).tolist()))
    count = 0
    while left:
        count += 1
        stack = [left.pop()]
        while stack:
            row, column = stack.pop()
            for near in [(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    stack.append(near)
    return count


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_it_is_the_difference_of_the_filled(share):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        predicted, mask, region = rng.random((12, 14)) < share, rng.random((12, 14)) < 0.15, rng.random((12, 14)) < 0.8
        assert component_error(predicted, mask) == abs(count_by_filling(predicted) - count_by_filling(mask))
        expected = abs(count_by_filling(predicted & region) - count_by_filling(mask & region))
        found = component_error(predicted.astype(np.uint8), mask.astype(np.uint8), region.astype(np.uint8))
        assert found == component_error(mask, predicted, region) == expected
        assert type(found) is int


def test_corners_join_and_a_region_cuts():
    diagonal, none = np.eye(6, dtype=bool), np.zeros((6, 6), bool)
    assert component_error(diagonal, none) == 1
    holes = np.ones((6, 6), bool)
    holes[2] = False
    assert component_error(diagonal, none, holes) == 2
    assert component_error(none, none) == component_error(diagonal, diagonal[::-1]) == 0


def test_what_is_no_binary_image_is_refused():
    with pytest.raises(ValueError, match="of one image"):
        component_error(np.zeros((3, 3), bool), np.zeros((3, 4), bool))
