"""Scores of anomaly detection against scikit-learn, and against plain loops over thresholds."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from wildfern.ssl.evaluation.metrics.bootstrap import percentiles, resamples, statistic_interval
from wildfern.ssl.evaluation.protocols import anomaly_scores
from wildfern.ssl.evaluation.protocols.anomaly_scores import (
    auroc,
    average_precision,
    detections,
    f1_max,
    image_scores,
    per_region_overlap,
    pixel_scores,
)


def of_scikit_learn(truth, scores):
    precision, recall, _ = precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return roc_auc_score(truth, scores), average_precision_score(truth, scores), f1.max()


def plain_overlap(maps, masks, limit):
    """PRO by the definition: at each distinct score, the covered share of each region and the share of normal pixels."""
    regions = []
    for image, mask in enumerate(masks):
        numbers, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [(image, numbers == number) for number in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        found = maps >= threshold
        covered = [found[image][region].mean() for image, region in regions]
        points.append((found[masks == 0].mean(), sum(covered) / len(covered)))
    area = 0.0
    for (x, y), (next_x, next_y) in pairwise(points):
        if next_x > limit:
            next_x, next_y = limit, y + (next_y - y) * (limit - x) / (next_x - x)
            return (area + (next_x - x) * (y + next_y) / 2) / limit
        area += (next_x - x) * (y + next_y) / 2
    return area / limit


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(anomaly_scores, "statistic_interval", partial(statistic_interval, draws=25))


@pytest.fixture
def marked():
    """Maps of scores with ties and masks with regions of several sizes; images 0, 3 and 6 are normal."""
    rng = np.random.default_rng(1)
    masks = np.zeros((9, 12, 10), np.uint8)
    for image in (1, 2, 4, 5, 7, 8):
        for _ in range(image % 3 + 1):
            top, left, side = *rng.integers(0, 8, 2), rng.integers(1, 4)
            masks[image, top : top + side, left : left + side] = 1
    masks[1, 10, 8], masks[1, 11, 9] = 1, 1  # one region: they touch at a corner
    maps = np.round(rng.normal(size=masks.shape) + 1.2 * masks, 1).astype(np.float32)
    return maps, masks


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_the_scores_are_scikit_learns_also_with_ties(decimals):
    rng = np.random.default_rng(decimals)
    truth = np.arange(60) % 3 == 0
    scores = np.round(rng.normal(size=60) + truth, decimals)
    found = detections(scores, truth)
    assert (auroc(found), average_precision(found), f1_max(found)) == pytest.approx(of_scikit_learn(truth, scores))
    of_images = image_scores(scores, truth)
    assert [score.metric for score in of_images] == ["auroc", "average_precision", "f1_max"]
    assert [score.value for score in of_images] == pytest.approx(of_scikit_learn(truth, scores))


def test_the_intervals_of_images_are_those_of_scikit_learn_on_the_same_resamples():
    rng = np.random.default_rng(4)
    truth = np.arange(12) % 4 == 0
    scores = np.round(rng.normal(size=12) + truth, 1)
    drawn = [images for images in next(resamples(12, 25)) if truth[images].any()]
    expected = np.array([of_scikit_learn(truth[images], scores[images]) for images in drawn])
    for score, (low, high) in zip(image_scores(scores, truth), map(percentiles, expected.T), strict=True):
        assert (score.low, score.high, score.n) == (pytest.approx(low), pytest.approx(high), 12)
        assert ("so it is optimistic" in score.detail) == (score.metric == "f1_max")


def test_pixel_scores_are_those_of_scikit_learn_and_the_plain_loop(marked):
    maps, masks = marked
    found = {score.metric: score for score in pixel_scores(maps, 255 * masks)}
    assert list(found) == ["pixel_auroc", "pixel_average_precision", "pixel_f1_max", "per_region_overlap"]
    expected = [*of_scikit_learn(masks.ravel(), maps.ravel()), plain_overlap(maps, masks, 0.3)]
    assert [score.value for score in found.values()] == pytest.approx(expected)
    assert {score.n for score in found.values()} == {9}
    regions = sum(ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks)
    assert f"mean over {regions} regions" in found["per_region_overlap"].detail


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_the_overlap_is_integrated_up_to_the_limit(marked, limit):
    maps, masks = marked
    covered, regions = anomaly_scores._region_shares(masks != 0)
    found = detections(maps.ravel(), masks.ravel(), covered.ravel() / regions.sum())
    assert per_region_overlap(found, limit) == pytest.approx(plain_overlap(maps, masks, limit))


def test_regions_count_the_same_whatever_their_size():
    masks = np.zeros((1, 20, 20), np.uint8)
    masks[0, :10, :10], masks[0, 15, 15] = 1, 1
    large, small = masks.astype(float), masks.astype(float)
    large[0, 15, 15] = small[0, :10, :10] = 0
    for found in (large, small):  # the other region is found by chance: 15 % on average up to 30 % false positives
        assert pixel_scores(found, masks)[-1].value == pytest.approx(0.5 + 0.5 * 0.15)
    assert pixel_scores(masks.astype(float), masks)[-1].value == 1


def test_pixel_intervals_are_those_of_the_exact_scores_of_the_same_resamples(marked):
    maps, masks = marked
    by_image = anomaly_scores._between_quantiles(maps, masks != 0, *anomaly_scores._region_shares(masks != 0))
    statistics = (auroc, average_precision, f1_max, per_region_overlap)
    for images in (np.arange(9), np.array([1, 1, 0, 5, 7, 2, 2, 2, 3])):
        found = by_image.detections(images)
        chosen, truth = maps[images], masks[images]
        expected = [*of_scikit_learn(truth.ravel(), chosen.ravel()), plain_overlap(chosen, truth, 0.3)]
        assert [statistic(found) for statistic in statistics] == pytest.approx(expected, abs=1e-6)
    normal = by_image.detections(np.array([0, 3, 6]))
    assert all(np.isnan(statistic(normal)) for statistic in statistics)
    for score in pixel_scores(maps, masks):
        assert score.low < score.value < score.high


def test_thresholds_at_quantiles_are_close_to_all_thresholds(monkeypatch):
    rng = np.random.default_rng(3)
    masks = np.zeros((6, 40, 40), np.uint8)
    masks[1:, 5:12, 20:30] = 1
    maps = (rng.normal(size=masks.shape) + 2 * masks).astype(np.float32)
    monkeypatch.setattr(anomaly_scores, "QUANTILES", 200)
    by_image = anomaly_scores._between_quantiles(maps, masks != 0, *anomaly_scores._region_shares(masks != 0))
    assert by_image.normal.shape[1] <= 400
    found = by_image.detections(np.arange(6))
    exact = of_scikit_learn(masks.ravel(), maps.ravel())
    assert (auroc(found), average_precision(found), f1_max(found)) == pytest.approx(exact, abs=3e-3)


def test_a_constant_score_is_chance():
    found = detections(np.zeros(10), np.arange(10) < 3)
    assert (auroc(found), average_precision(found)) == (0.5, pytest.approx(0.3))
    masks = np.zeros((2, 5, 5))
    masks[0, :2] = 1
    assert pixel_scores(np.zeros((2, 5, 5)), masks)[-1].value == pytest.approx(0.15)  # the diagonal, up to 0.3


def test_what_cannot_be_scored_is_refused(marked):
    maps, masks = marked
    with pytest.raises(ValueError, match="need both kinds of images; of 3, 0 are anomalous"):
        image_scores([1.0, 2.0, 3.0], [False] * 3)
    with pytest.raises(ValueError, match="must be finite"):
        image_scores([1.0, np.nan], [True, False])
    with pytest.raises(ValueError, match="at least one"):
        image_scores([], [])
    with pytest.raises(ValueError, match=r"of one shape, got \[9, 12, 10\] and \[9, 12, 9\]"):
        pixel_scores(maps, masks[:, :, 1:])
    with pytest.raises(ValueError, match="the masks mark 0 % of them"):
        pixel_scores(maps, 0 * masks)
    with pytest.raises(ValueError, match="what each threshold covers"):
        per_region_overlap(detections([1.0, 2.0], [True, False]))
    assert np.isnan(auroc(detections([1.0, 2.0], [True, True])))


def test_images_without_an_error_have_no_interval_and_neither_has_one():
    score = image_scores([0.2, 0.1], [True, False])[0]
    assert (score.value, score.low, score.high, score.n) == (1.0, None, None, 2)
    assert "no interval: all resamples are alike" in score.detail
    score = image_scores([0.2, 0.1, 0.15, 0.3, 0.05, 0.2], [True, False, False, True, False, False])[0]
    assert score.low < score.value <= score.high
    assert "95 % interval from 1000 bootstrap resamples of 6 test images" in score.detail
    score = pixel_scores(np.eye(4)[None], np.eye(4)[None])[0]
    assert (score.low, score.high, score.n) == (None, None, 1)
    assert "no interval from one test image" in score.detail
