"""The best threshold by trying all of them on all images."""

import math

import numpy as np
import pytest

from wildfern.ssl.evaluation.metrics.overlap import overlap
from wildfern.ssl.evaluation.metrics.segmentation_thresholds import THRESHOLDS, best_threshold


def image(seed, levels=None, share=0.3):
    rng = np.random.default_rng(seed)
    size = (5 + seed % 3, 9)
    mask = rng.random(size) < share
    probability = 0.4 * mask * rng.random(size) + 0.6 * rng.random(size)
    if levels:
        probability = np.round(probability * levels) / levels
    return probability.astype(np.float32), mask, (rng.random(size) < 0.7 if seed % 2 else None)


def by_trying(images, metric, thresholds):
    means = []
    for threshold in thresholds:
        scores = []
        for probability, mask, region in images:
            predicted = probability >= np.float32(threshold)
            scores.append(getattr(overlap(predicted, mask, region), metric))
        means.append(sum(scores) / len(scores))
    best = [t for t, mean in zip(thresholds, means, strict=True) if mean >= max(means) - 1e-12]
    return min(best, key=lambda t: (round(abs(t - 0.5), 9), t)), max(means)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("levels", [None, 4, 20])
def test_it_is_the_best_of_all_tried(metric, levels):
    for start in (0, 10, 20):
        images = [image(start + k, levels, share=0.3 if k else 0.0) for k in range(5)]  # the first has no mask
        threshold, mean = best_threshold(iter(images), metric)
        assert (threshold, pytest.approx(mean)) == by_trying(images, metric, (np.arange(1, 100) / 100).tolist())
        assert type(threshold) is type(mean) is float
        few = [0.3, 0.9, 0.1]
        assert best_threshold(images, metric, few) == pytest.approx(by_trying(images, metric, few))


def test_it_is_the_mean_of_images_and_not_of_pixels():
    wide = np.full((40, 40), 0.6, np.float32), np.ones((40, 40), bool), None
    narrow = [(np.array([[0.6, 0.9]], np.float32), np.array([[0, 1]]), None)] * 9
    threshold, mean = best_threshold([wide, *narrow])
    assert threshold == 0.61
    assert mean == pytest.approx(0.9)


def test_of_equal_ones_the_nearest_to_a_half_then_the_lower():
    mask = np.array([[0, 1]])
    assert best_threshold([(np.array([[0.1, 0.9]]), mask, None)]) == (0.5, 1)
    assert best_threshold([(np.array([[0.1, 0.3]]), mask, None)]) == (0.3, 1)
    assert best_threshold([(np.array([[0.7, 0.9]]), mask, None)]) == (0.71, 1)
    assert best_threshold([(np.array([[0.1, 0.9]]), mask, None)], thresholds=[0.51, 0.49]) == (0.49, 1)
    assert best_threshold([(np.array([[0.1, 0.9]]), 0 * mask, None)]) == (0.91, 1)
    assert [round(t, 2) for t in THRESHOLDS[[0, 49, 98]]] == [0.01, 0.5, 0.99]


def test_what_has_no_best_threshold_is_refused():
    images = [image(0)]
    with pytest.raises(ValueError, match="no image to choose a threshold on"):
        best_threshold([])
    with pytest.raises(ValueError, match="metric is dice or iou, got 'recall'"):
        best_threshold(images, "recall")
    for thresholds in ([], [[0.5]], [1.5], [math.nan], 0.5):
        with pytest.raises(ValueError, match=r"thresholds are numbers \[T\] in \[0, 1\]"):
            best_threshold(images, thresholds=thresholds)
    with pytest.raises(ValueError, match="probability"):
        best_threshold([(np.full((2, 2), np.nan), np.zeros((2, 2), bool), None)])
