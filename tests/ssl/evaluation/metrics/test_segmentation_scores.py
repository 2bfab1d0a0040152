"""Scores of an image: each that of its own function, which has its own test, at the threshold."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from wildfern.ssl.evaluation.metrics.cl_dice import cl_dice
from wildfern.ssl.evaluation.metrics.components import component_error
from wildfern.ssl.evaluation.metrics.overlap import overlap
from wildfern.ssl.evaluation.metrics.pixel_ranking import average_precision, roc_auc
from wildfern.ssl.evaluation.metrics.segmentation_scores import image_scores
from wildfern.ssl.evaluation.metrics.tolerant_overlap import tolerant_overlap
from wildfern.ssl.evaluation.metrics.width_recall import recall_by_width

NAMES = ["dice", "iou", "precision", "recall", "specificity", "accuracy", "roc_auc", "average_precision", "cl_dice"]
NAMES += ["tolerant_f1", "component_error"]


def image(seed, size=(30, 36)):
    rng = np.random.default_rng(seed)
    field, noise, outline = (gaussian_filter(rng.standard_normal(size), width) for width in (2, 1, 4))
    mask = np.abs(field) < 0.04
    probability = 1 / (1 + np.exp(-4 * (mask - 0.5) - 8 * noise))
    return probability.astype(np.float32), mask, outline > -0.1


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("cut", [False, True])
def test_each_is_that_of_its_function(threshold, cut):
    probability, mask, region = image(3)
    region = region if cut else None
    probability.flat[::5] = np.float32(threshold)  # at the threshold is predicted
    predicted = (probability >= np.float32(threshold)).astype(np.uint8)
    assert (predicted != (probability > np.float32(threshold))).any()
    widths = 3 + np.arange(mask.size).reshape(mask.shape) % 9
    scores = image_scores(probability, mask, threshold, region=region, tolerance=1.0, widths=widths)
    counts = overlap(predicted, mask, region)
    bands = recall_by_width(predicted, mask, widths=widths, region=region)
    assert list(scores) == NAMES + list(bands)
    assert list(bands) == ["recall_2_to_4_px", "recall_4_to_8_px", "recall_over_8_px"]
    for name in NAMES[:6]:
        assert scores[name] == getattr(counts, name)
    assert scores["roc_auc"] == roc_auc(probability, mask, region)
    assert scores["average_precision"] == average_precision(probability, mask, region)
    assert scores["cl_dice"] == cl_dice(predicted, mask, region)
    assert scores["tolerant_f1"] == tolerant_overlap(predicted, mask, 1.0, region).f1
    assert scores["component_error"] == component_error(predicted, mask, region)
    assert {name: scores[name] for name in bands} == {name: share for name, (share, _) in bands.items()}
    assert all(type(score) is float for score in scores.values())
    measured = image_scores(probability, mask, threshold, region=region)
    assert [name for name in measured if name not in NAMES] == list(recall_by_width(mask, mask, region=region))


def test_a_perfect_probability():
    _, mask, region = image(1)
    scores = image_scores(mask.astype(np.float32), mask, 0.5, region=region)
    assert scores.pop("component_error") == 0
    assert set(scores.values()) == {1.0}


def test_names_depend_on_the_mask_alone():
    probability, mask, _ = image(2)
    none, full = np.zeros_like(mask), np.ones_like(mask)
    without_mask = [n for n in NAMES if n not in ("recall", "roc_auc", "average_precision", "cl_dice")]
    without_background = [n for n in NAMES if n not in ("specificity", "roc_auc")]
    for some in (probability, np.zeros_like(probability), np.ones_like(probability)):
        assert list(image_scores(some, none, 0.5)) == without_mask
        assert list(image_scores(some, mask, 0.5, region=~mask)) == without_mask
        assert [name for name in image_scores(some, full, 0.5) if name in NAMES] == without_background
        assert list(image_scores(some, mask, 0.5)) == list(image_scores(probability, mask, 0.5))
    nothing = image_scores(np.zeros_like(probability), none, 0.5)
    assert (nothing["dice"], nothing["tolerant_f1"], nothing["component_error"]) == (1, 1, 0)
    missed = image_scores(np.zeros_like(probability), mask, 0.5)
    assert (missed["dice"], missed["precision"], missed["cl_dice"], missed["tolerant_f1"]) == (0, 0, 0, 0)


def test_what_cannot_be_scored_is_refused():
    probability, mask, _ = image(0)
    for threshold in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"threshold is a probability in \[0, 1\]"):
            image_scores(probability, mask, threshold)
    with pytest.raises(ValueError, match="probability and mask are"):
        image_scores(probability[1:], mask, 0.5)
    with pytest.raises(ValueError, match=r"mask is \[H, W\]"):
        image_scores(probability[None], mask[None], 0.5)
    with pytest.raises(ValueError, match="got nan"):
        image_scores(np.full_like(probability, np.nan), mask, 0.5)
    with pytest.raises(ValueError, match="region and mask"):
        image_scores(probability, mask, 0.5, region=mask[1:])
