"""Areas and precisions by loops over pairs of pixels and over thresholds."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from wildfern.ssl.evaluation.metrics.pixel_ranking import (
    at_least,
    average_precision,
    count_at_least,
    precision_recall_curve,
    roc_auc,
    sorted_pixels,
)


def image(seed, levels=None, size=(8, 11), dtype=np.float32):
    """Probability, mask and region; `levels` makes ties."""
    rng = np.random.default_rng(seed)
    mask = rng.random(size) < 0.3
    probability = np.clip(0.35 * mask + 0.65 * rng.random(size), 0, 1)
    if levels:
        probability = np.round(probability * levels) / levels
    return probability.astype(dtype), mask, rng.random(size) < 0.7


def area_by_a_loop(probability, mask, region):
    wins = pairs = 0
    for high in probability[mask & region]:
        for low in probability[~mask & region]:
            wins += 1 if high > low else 0.5 if high == low else 0
            pairs += 1
    return wins / pairs


def precision_by_a_loop(probability, mask, region):
    total, before, area = int((mask & region).sum()), 0, 0.0
    for threshold in sorted(set(probability[region].tolist()), reverse=True):
        predicted = (probability >= threshold) & region
        found = int((predicted & mask).sum())
        area += (found - before) / total * found / int(predicted.sum())
        before = found
    return area


@pytest.mark.parametrize("levels", [None, 5, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_both_are_the_loops_with_and_without_ties(levels, dtype):
    probability, mask, region = image(levels or 0, levels, dtype=dtype)
    everywhere = np.ones_like(mask)
    for inside in (everywhere, region):
        given = None if inside is everywhere else inside
        area, precision = roc_auc(probability, mask, given), average_precision(probability, mask, given)
        assert area == pytest.approx(area_by_a_loop(probability, mask, inside), abs=1e-12)
        assert precision == pytest.approx(precision_by_a_loop(probability, mask, inside), abs=1e-12)
        assert area == pytest.approx(roc_auc_score(mask[inside], probability[inside]))
        assert precision == pytest.approx(average_precision_score(mask[inside], probability[inside]))


def test_perfect_reversed_and_constant_rankings():
    _, mask, _ = image(0)
    exact = mask.astype(np.float32)
    constant = np.full(mask.shape, 0.25, np.float32)
    assert (roc_auc(exact, mask), average_precision(exact, mask)) == (1, 1)
    assert roc_auc(1 - exact, mask) == 0
    assert (roc_auc(constant, mask), average_precision(constant, mask)) == (0.5, pytest.approx(mask.mean()))


def test_neighboring_floats_are_not_ties():
    low = np.float32(0.5)
    probability = np.array([[low, np.nextafter(low, np.float32(1))]])
    assert roc_auc(probability, np.array([[0, 1]])) == 1
    assert roc_auc(probability, np.array([[1, 0]])) == 0


def test_one_class_alone_has_no_area():
    probability, mask, _ = image(0)
    none, full = np.zeros_like(mask), np.ones_like(mask)
    assert roc_auc(probability, none) is roc_auc(probability, full) is average_precision(probability, none) is None
    assert average_precision(probability, full) == 1
    assert roc_auc(probability, mask, mask) is roc_auc(probability, mask, ~mask) is None


def test_the_curve_pools_the_pixels_of_all_images():
    first, second = image(1), image(2, 20, size=(3, 5))
    images = [first, (*second[:2], None), (second[0], np.zeros_like(second[1]), second[2])]
    thresholds, precision, recall = precision_recall_curve(iter(images))
    assert thresholds.tolist() == [k / 1000 for k in range(1001)]
    for k in range(0, 1001, 50):  # among them the levels of `second`
        found = predicted = total = 0
        for probability, mask, region in images:
            for place in np.ndindex(mask.shape):
                if region is None or region[place]:
                    above = probability[place] >= np.float32(k / 1000)
                    predicted += above
                    found += above and mask[place]
                    total += mask[place]
        assert recall[k] == pytest.approx(found / total)
        assert precision[k] == pytest.approx(found / predicted if predicted else 1)
    assert recall[0] == 1
    with pytest.raises(ValueError, match="no image has a mask pixel in its region"):
        precision_recall_curve(images[2:])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_threshold_is_of_the_probabilitys_type(dtype):
    thresholds = np.arange(101) / 100
    probability = thresholds.astype(dtype)[None]
    for k, threshold in enumerate(thresholds):
        assert at_least(probability, threshold).sum() == at_least(probability, float(threshold)).sum() == 101 - k
    assert count_at_least(probability[0], thresholds).tolist() == list(range(101, 0, -1))


def test_sorted_pixels_are_those_of_the_region():
    probability, mask, region = image(3, 6)
    positive, negative = sorted_pixels(probability, mask, region)
    assert positive.tolist() == sorted(probability[mask & region].tolist())
    assert negative.tolist() == sorted(probability[~mask & region].tolist())


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (np.zeros((2, 2), np.float32), r"of one image, got \[2, 2\] and \[2, 3\]"),
        (np.zeros((2, 3), np.uint8), "probability has floats, got uint8"),
        (np.array([[0, 1, np.nan], [0, 0, 0]]), r"in \[0, 1\], got nan"),
        (np.array([[0, 1.5, 0], [0, 0, 0]]), r"in \[0, 1\], got 0.0 to 1.5"),
        (np.array([[0, -0.5, 0], [0, 0, 0]]), r"in \[0, 1\], got -0.5 to 0.0"),
    ],
)
def test_what_is_no_probability_is_refused(probability, words):
    mask = np.eye(2, 3, dtype=bool)
    for function in (roc_auc, average_precision, sorted_pixels):
        with pytest.raises(ValueError, match=words):
            function(probability, mask)
    with pytest.raises(ValueError, match="region has no pixels"):
        roc_auc(np.zeros((2, 3)), mask, np.zeros((2, 3), bool))
