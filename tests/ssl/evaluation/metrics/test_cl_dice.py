"""Centerline Dice by a loop over the skeletons' pixels, and of drawn lines."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.morphology import skeletonize

from wildfern.ssl.evaluation.metrics.cl_dice import cl_dice, skeleton
from wildfern.ssl.evaluation.metrics.overlap import overlap


def blobs(seed, size=(20, 24)):
    rng = np.random.default_rng(seed)
    return gaussian_filter(rng.standard_normal(size), 1.2) > 0.1


def drawn(*rows):
    return np.array([[letter == "#" for letter in row] for row in rows])


def by_a_loop(predicted, mask):
    of_predicted, of_mask = skeletonize(predicted), skeletonize(mask)
    shares = []
    for line, area in ((of_predicted, mask), (of_mask, predicted)):
        inside = total = 0
        for place in np.ndindex(line.shape):
            total += line[place]
            inside += line[place] and area[place]
        shares.append(inside / total)
    precision, sensitivity = shares
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_loop_over_the_skeletons(seed):
    predicted, mask, region = blobs(seed), blobs(seed) ^ (blobs(seed + 50) & blobs(seed + 99)), blobs(seed + 70)
    assert cl_dice(predicted, mask) == pytest.approx(by_a_loop(predicted, mask))
    found = cl_dice(predicted.astype(np.uint8), mask.astype(np.uint8), region.astype(np.uint8))
    assert found == pytest.approx(by_a_loop(predicted & region, mask & region))


def test_a_broken_thin_line_is_punished_and_a_thick_one_is_not():
    mask = drawn("............", "............", "##########..", "............", "............")
    broken = drawn("............", "............", "####..####..", "............", "............")
    thick = drawn("............", "##########..", "##########..", "##########..", "............")
    beside = drawn("............", "............", "............", "............", "##########..")
    assert cl_dice(mask, mask) == 1
    assert cl_dice(broken, mask) == pytest.approx(2 * 1 * 0.8 / 1.8)  # its skeleton is in the mask; 8 of 10 are found
    assert cl_dice(thick, mask) > 0.9  # only an end of its skeleton is beside the line
    assert overlap(thick, mask).dice == 0.5
    assert cl_dice(beside, mask) == 0
    longer = drawn("............", "............", "############", "............", "............")
    assert cl_dice(longer, mask) == pytest.approx(2 * 10 / 12 * 1 / (10 / 12 + 1))
    left = np.zeros_like(mask)
    left[:, :4] = True
    assert cl_dice(broken, mask, left) == 1


def test_empty_and_full_masks():
    none, some, full = np.zeros((6, 7), bool), blobs(0, (6, 7)), np.ones((6, 7), bool)
    assert cl_dice(some, none) is cl_dice(none, none) is cl_dice(some, some, ~some) is None
    assert cl_dice(none, some) == 0
    assert cl_dice(full, full) == 1


def test_every_object_has_a_skeleton():
    for number in range(1, 2**9):
        mask = np.array([number >> k & 1 for k in range(9)], bool).reshape(3, 3)
        line = skeleton(mask)
        assert line.any()
        assert not (line & ~mask).any()


def test_what_is_no_binary_image_is_refused():
    with pytest.raises(ValueError, match="predicted is bool or integers 0 and 1, got float32"):
        cl_dice(np.zeros((3, 3), np.float32), np.zeros((3, 3), bool))
    with pytest.raises(ValueError, match="of one image"):
        cl_dice(np.zeros((3, 3), bool), np.zeros((3, 4), bool))
