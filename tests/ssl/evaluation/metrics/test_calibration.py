"""Calibration errors by a loop over bins, losses by scikit-learn, temperatures by the condition of a minimum."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss

from wildfern.ssl.evaluation.evaluator import Predictions
from wildfern.ssl.evaluation.metrics.calibration import (
    TEMPERATURES,
    calibration_error,
    calibration_scores,
    fit_temperature,
)
from wildfern.ssl.evaluation.metrics.classification_scores import ranked_classes

BY = {"width": "expected", "mass": "adaptive"}


def classified(n, classes=5, factor=1.0, seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of which softmax(logits / factor) is exact, and labels drawn from it."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return factor * logits, labels


def predicted(logits, labels, classes=None, temperature=None) -> Predictions:
    classes = torch.arange(logits.shape[1]) if classes is None else classes
    return Predictions(labels, ranked_classes(logits, classes), logits, classes, temperature)


def by_a_loop(confidence, right, bounds) -> float:
    error = 0.0
    for low, high in bounds:
        members = [at for at, c in enumerate(confidence) if low < c <= high or (c == low == bounds[0][0])]
        if members:
            accuracy = sum(right[at] for at in members) / len(members)
            error += len(members) / len(right) * abs(accuracy - sum(confidence[at] for at in members) / len(members))
    return error


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_equal_width_is_the_loop_of_guo_et_al(bins):
    logits, labels = classified(300, factor=2.0)
    confidence, guesses = logits.double().softmax(1).max(1)
    confidence[:4] = torch.tensor([1.0, 0.0, 0.25, 0.5])  # at edges
    right = guesses == labels
    bounds = [(m / bins, (m + 1) / bins) for m in range(bins)]
    expected = by_a_loop(confidence.tolist(), right.tolist(), bounds)
    assert calibration_error(confidence, right, bins=bins) == pytest.approx(expected, abs=1e-12)


def test_equal_mass_sorts_images_into_bins_of_one_size():
    logits, labels = classified(300, factor=2.0)
    confidence, guesses = logits.double().softmax(1).max(1)
    right = (guesses == labels).double()
    order = confidence.argsort()
    parts = zip(confidence[order].split(20), right[order].split(20), strict=True)
    expected = sum(20 / 300 * abs((hits - sure).mean().item()) for sure, hits in parts)
    assert calibration_error(confidence, right, binning="mass") == pytest.approx(expected, abs=1e-12)
    mixed = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    tied = (confidence * 8).ceil() / 8
    assert calibration_error(tied[mixed], right[mixed], binning="mass") == pytest.approx(
        calibration_error(tied, right, binning="mass"), abs=1e-12
    )
    assert calibration_error(torch.tensor([0.5, 0.9]), torch.tensor([True, False]), binning="mass") == pytest.approx(
        0.7
    )


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_scores_before_and_after_scaling(binning):
    logits, labels = classified(400, factor=3.0)
    classes = torch.tensor([7, 2, 9, 4, 0])  # in any order
    predictions = predicted(logits, classes[labels], classes, temperature=3.0)
    scores = {score.metric: score for score in calibration_scores(predictions, binning=binning, detail="held")}
    name = f"{BY[binning]}_calibration_error"
    names = [name, "negative_log_likelihood", "brier_score"]
    assert list(scores) == [*names, *(f"scaled_{one}" for one in names)]
    for prefix, temperature in (("", 1.0), ("scaled_", 3.0)):
        p = (logits.double() / temperature).softmax(1)
        hot = F.one_hot(labels, 5)
        assert scores[f"{prefix}negative_log_likelihood"].value == pytest.approx(log_loss(labels, p.numpy()), rel=1e-6)
        assert scores[f"{prefix}brier_score"].value == pytest.approx(((p - hot) ** 2).sum(1).mean().item(), rel=1e-6)
        confidence, guesses = p.max(1)
        error = scores[prefix + name]
        assert error.value == pytest.approx(calibration_error(confidence, guesses == labels, binning=binning))
        assert all(s.n == 400 and s.low <= s.value <= s.high and s.detail.startswith("held; ") for s in scores.values())
    assert scores["scaled_" + name].low == 0 < scores[name].low
    assert "temperature 3, fitted on held-out train" in scores["scaled_brier_score"].detail
    assert [score.metric for score in calibration_scores(predicted(logits, labels), binning=binning)] == names


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_the_interval_of_the_calibration_error_has_the_true_one(factor):
    logits, labels = classified(100_000, factor=factor, seed=9)
    true = 0.0 if factor == 1 else calibration_error(*_outcomes(logits, labels))
    found = 0
    for seed in range(25):
        score = calibration_scores(predicted(*classified(300, factor=factor, seed=seed)))[0]
        found += score.low - 0.002 <= true <= score.high
    # About 0.9 with 300 images, as larger simulations show; percentiles of a bootstrap never have an error of 0.
    assert found >= 20


def _outcomes(logits, labels):
    confidence, guesses = logits.softmax(1).max(1)
    return confidence, guesses == labels


def test_an_error_that_is_only_chance_is_named():
    score = calibration_scores(predicted(*classified(200)))[0]
    chance = float(score.detail.split(" % if confidences were exact")[0].split("; ")[-1])
    errors = [calibration_error(*_outcomes(*classified(200, seed=seed))) for seed in range(1, 40)]
    assert chance == pytest.approx(100 * np.mean(errors), rel=0.2)


def test_classes_without_train_images_are_wrong_and_have_no_likelihood():
    logits, labels = classified(50)
    unseen = labels.clone()
    unseen[:10] = 12
    error, loss, brier = calibration_scores(predicted(logits, unseen))
    seen = calibration_scores(predicted(logits[10:], labels[10:]))
    assert (loss.n, loss.value) == (40, pytest.approx(seen[1].value))
    assert "10 of 50 test images left out, as no train image has their class" in loss.detail
    p = logits[:10].double().softmax(1)
    assert brier.value == pytest.approx(((p**2).sum(1) + 1).sum().item() / 50 + 0.8 * seen[2].value)
    assert error.n == 50
    assert [score.metric for score in calibration_scores(predicted(logits, torch.full_like(labels, 12)))][1:] == [
        "brier_score"
    ]


def test_certain_and_single_predictions():
    certain = calibration_scores(
        predicted(torch.tensor([[1e4, 0.0], [0.0, 1e4]]), torch.tensor([0, 1]), temperature=0.05)
    )
    assert [score.value for score in certain] == [0] * 6
    (error, *_) = calibration_scores(predicted(torch.zeros(1, 2), torch.tensor([0])))
    assert (error.value, error.low, error.high) == (0.5, None, None)
    assert calibration_scores(Predictions(torch.tensor([0]), torch.tensor([[0]]))) == []


@pytest.mark.parametrize("factor", [0.4, 1.0, 5.0])
def test_the_temperature_is_the_minimum_and_undoes_a_factor(factor):
    logits, labels = classified(3000, factor=factor)
    found = fit_temperature(logits, labels)
    p = (logits.double() / found).softmax(1)
    expected, own = (p * logits).sum(1).mean(), logits.gather(1, labels[:, None]).double().mean()
    assert (expected - own).item() == pytest.approx(0, abs=1e-5 * factor)  # derivative by 1 / temperature
    assert found == pytest.approx(factor, rel=0.1)


def test_a_temperature_without_a_minimum_is_low_or_at_the_bound():
    logits = 5 * torch.eye(4)
    low = fit_temperature(logits, torch.arange(4))
    assert TEMPERATURES[0] < low
    assert F.cross_entropy(logits.double() / low, torch.arange(4)) == pytest.approx(0, abs=1e-12)
    assert fit_temperature(logits, torch.arange(4).roll(1)) == pytest.approx(TEMPERATURES[1], rel=1e-4)


def test_what_cannot_be_calibrated_is_refused():
    logits, labels = classified(8)
    for bad in (torch.full_like(labels, 5), labels[1:], labels - 9):
        with pytest.raises(ValueError, match="labels are 8 columns of logits, 0 to 4"):
            fit_temperature(logits, bad)
    with pytest.raises(ValueError, match=r"float\[n, C\] of at least one image, got \[0, 5\]"):
        fit_temperature(logits[:0], labels[:0])
    logits[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN or infinity: the classifier has diverged"):
        calibration_scores(predicted(logits, labels))
    half, right = torch.full((2,), 0.5), torch.ones(2, dtype=torch.bool)
    with pytest.raises(ValueError, match="bins is a number of at least 1"):
        calibration_error(half, right, bins=0)
    with pytest.raises(ValueError, match="one value for each image"):
        calibration_error(half[:0], right[:0])
    with pytest.raises(ValueError, match="probabilities"):
        calibration_error(3 * half, right)
