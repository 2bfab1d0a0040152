"""Objects of fewer pixels than wanted are removed, the others stay as they are."""

import numpy as np
import pytest
from scipy.ndimage import label

from wildfern.ssl.segmentation.small_objects import without_small_objects


@pytest.mark.parametrize("pixels", [0, 1, 3, 4.5, 1000])
def test_what_stays_is_that_of_a_loop_over_objects(pixels):
    mask = np.random.default_rng(0).random((60, 50)) < 0.3
    expected = np.zeros_like(mask)
    objects, count = label(mask, structure=np.ones((3, 3)))
    for number in range(1, count + 1):
        if (objects == number).sum() >= pixels:
            expected |= objects == number
    np.testing.assert_array_equal(without_small_objects(mask, pixels), expected)
    if pixels <= 1:
        np.testing.assert_array_equal(expected, mask)
    else:
        assert expected.sum() < mask.sum()


@pytest.mark.parametrize("value", [True, False])
def test_masks_of_one_value(value):
    mask = np.full((4, 5), value)
    np.testing.assert_array_equal(without_small_objects(mask, 20), mask)
    assert not without_small_objects(mask, 21).any()


def test_a_diagonal_line_is_one_object():
    mask = np.eye(6, dtype=bool)
    np.testing.assert_array_equal(without_small_objects(mask, 6), mask)
