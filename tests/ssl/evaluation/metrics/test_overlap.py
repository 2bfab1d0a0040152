"""Counts by a loop over pixels, shares by their formulas."""

import numpy as np
import pytest

from wildfern.ssl.evaluation.metrics.overlap import Overlap, binary_pair, overlap


def images(seed, height=7, width=9):
    rng = np.random.default_rng(seed)
    return (rng.random((height, width)) < share for share in (0.4, 0.3, 0.7))


def by_a_loop(predicted, mask, region=None):
    counts = dict.fromkeys(("true_positive", "false_positive", "false_negative", "true_negative"), 0)
    for place in np.ndindex(mask.shape):
        if region is None or region[place]:
            right = "true" if predicted[place] == mask[place] else "false"
            counts[f"{right}_{'positive' if predicted[place] else 'negative'}"] += 1
    return Overlap(**counts)


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_the_loop(seed):
    predicted, mask, region = images(seed)
    assert overlap(predicted, mask) == by_a_loop(predicted, mask)
    found = overlap(predicted.astype(np.uint8), mask.astype(np.int64), region.astype(np.uint8))
    assert found == by_a_loop(predicted, mask, region)
    assert all(type(count) is int for count in vars(found).values())
    tp, fp, fn, tn = vars(found).values()
    assert tp + fp + fn + tn == region.sum()
    assert found.precision == tp / (tp + fp)
    assert found.recall == tp / (tp + fn)
    assert found.dice == pytest.approx(2 / (1 / found.precision + 1 / found.recall))
    assert found.iou == pytest.approx(found.dice / (2 - found.dice))
    assert found.specificity == tn / (tn + fp)
    assert found.accuracy == (tp + tn) / (tp + fp + fn + tn)


def test_a_share_of_nothing_is_1_without_errors_and_0_with():
    none, some, full = np.zeros((3, 4), bool), np.eye(3, 4, dtype=bool), np.ones((3, 4), bool)
    names = ("dice", "iou", "precision", "recall", "specificity", "accuracy")

    def shares(predicted, mask):
        return [getattr(overlap(predicted, mask), name) for name in names]

    assert shares(none, none) == shares(full, full) == shares(some, some) == [1] * 6
    assert shares(none, some) == [0, 0, 0, 0, 1, 0.75]
    assert shares(some, none) == [0, 0, 0, 0, 0.75, 0.75]
    assert shares(none, full) == shares(full, none) == [0] * 6
    assert shares(some, full) == [0.4, 0.25, 1, 0.25, 0, 0.25]


def test_what_is_outside_of_the_region_does_not_count():
    predicted, mask, region = images(7)
    other = predicted ^ (~region & mask)
    assert (other != predicted).any()
    assert overlap(other, mask, region) == overlap(predicted, mask, region)
    inside, of_mask, pixels = binary_pair(predicted, mask, region)
    assert not (inside | of_mask)[~region].any()
    assert pixels == region.sum()


@pytest.mark.parametrize(
    ("predicted", "mask", "region", "words"),
    [
        (np.zeros((2, 3), bool), np.zeros((3, 2), bool), None, r"of one image, got \[2, 3\] and \[3, 2\]"),
        (np.zeros((2, 3), bool), np.zeros((2, 3), bool), np.ones((3, 3), bool), r"region and mask are of one image"),
        (np.zeros((2, 3), bool), np.zeros((2, 3), bool), np.zeros((2, 3), bool), "the region has no pixels"),
        (np.zeros((1, 2, 3), bool), np.zeros((1, 2, 3), bool), None, r"predicted is \[H, W\] .* got \[1, 2, 3\]"),
        (np.zeros((0, 3), bool), np.zeros((0, 3), bool), None, r"predicted is \[H, W\] of at least one pixel"),
        (np.zeros((2, 3)), np.zeros((2, 3), bool), None, "predicted is bool or integers 0 and 1, got float64"),
        (np.zeros((2, 3), bool), np.full((2, 3), 255, np.uint8), None, "mask has only the values 0 and 1, got 255"),
        (np.zeros((2, 3), bool), np.full((2, 3), -1), None, "mask has only the values 0 and 1, got -1"),
        (np.zeros((2, 3), bool), np.full((2, 3), np.nan), None, "mask is bool or integers"),
    ],
)
def test_what_is_no_binary_image_is_refused(predicted, mask, region, words):
    with pytest.raises(ValueError, match=words):
        overlap(predicted, mask, region)
