import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from wildfern.ssl.evaluation import Features, linear_probe
from wildfern.ssl.evaluation.metrics.calibration import calibration_scores
from wildfern.ssl.evaluation.protocols.linear_probe import STRENGTHS
from wildfern.ssl.evaluation.protocols.logistic_regression import RegularizationPath, compared
from wildfern.ssl.evaluation.spilled_array import MemoryBudget, SpilledArray
from wildfern.ssl.evaluation.stratified import class_ranks
from wildfern.ssl.tracking.progress import SILENT

FEW = STRENGTHS[:4]  # the weaker ones take seconds, and are chosen in other tests


def sklearn_weights(features, strength):
    x = StandardScaler().fit_transform(features.x.double().numpy())
    model = LogisticRegression(C=1 / (strength * len(x)), tol=1e-10, max_iter=20_000).fit(x, features.y.numpy())
    return model.coef_.T, model.intercept_


def centered(weight):
    """The softmax does not change with a shift of all classes."""
    return weight - weight.mean(-1, keepdims=True)


@pytest.mark.parametrize(("n", "dim"), [(300, 12), (20, 60)])  # more rows than features, and fewer
def test_every_minimum_on_the_path_is_sklearns(blobs, n, dim):
    train = blobs(n, dim)
    path = RegularizationPath(train)
    for strength in (1.0, 1e-1, 1e-2, 1e-3):
        found = path.solve(strength)
        weight, bias = sklearn_weights(train, strength)
        np.testing.assert_allclose(centered(found.weight.numpy()), centered(weight), atol=2e-4)
        np.testing.assert_allclose(centered(found.bias.numpy()), centered(bias), atol=2e-4)


def test_two_classes_match_sklearns_softmax(blobs):
    # For two classes scikit-learn fits one vector w = w1 - w0; the softmax with L2 splits it in halves, at half the penalty.
    train = blobs(200, classes=2)
    found = RegularizationPath(train).solve(0.01)
    weight, _ = sklearn_weights(train, 0.005)
    np.testing.assert_allclose((found.weight[:, 1] - found.weight[:, 0]).numpy(), weight[:, 0], atol=2e-4)


def test_float32_reaches_the_same_minimum(blobs, monkeypatch):
    train = blobs(400, 16)
    exact = RegularizationPath(train).solve(1e-3)
    monkeypatch.setattr(sys.modules["wildfern.ssl.evaluation.protocols.logistic_regression"], "FLOAT64_UP_TO", 0)
    path = RegularizationPath(train)
    assert path.dtype == torch.float32
    torch.testing.assert_close(path.solve(1e-3).weight.double(), exact.weight, atol=2e-3, rtol=0)


def test_features_in_a_file_are_solved_in_parts_and_without_copies(blobs, monkeypatch, tmp_path):
    train = blobs(900, 16)
    rows = torch.arange(900)[torch.arange(900) % 5 != 0]
    exact = RegularizationPath(train[rows]).solve(1e-2)
    module = sys.modules["wildfern.ssl.evaluation.protocols.logistic_regression"]
    monkeypatch.setattr(module, "FLOAT64_UP_TO", 0)
    monkeypatch.setattr(module, "COPIED_UP_TO", 0)
    monkeypatch.setattr(module, "ELEMENTS", 16)
    array = SpilledArray(MemoryBudget(0))
    array.append(train.x.numpy())
    path = RegularizationPath(Features(torch.from_numpy(array.finish()), train.y), rows)
    assert path.n == 720
    found = path.solve(1e-2)
    torch.testing.assert_close(found.weight.double(), exact.weight, atol=2e-3, rtol=0)
    assert path.passes < 60
    torch.testing.assert_close(found.scores(train).double(), exact.scores(train), atol=1e-2, rtol=0)


def test_a_start_from_nearly_the_same_images_is_close_and_changes_no_minimum(blobs):
    train = blobs(600, 20)
    begun = RegularizationPath(train, torch.arange(500)).solve(1e-3)
    cold, warm = RegularizationPath(train), RegularizationPath(train)
    assert warm.start_from(begun)
    losses = [path._objective(path.weight, path.bias, 1e-3)[0] for path in (cold, warm)]
    assert losses[1] < losses[0] / 2
    first, second = cold.solve(1e-3), warm.solve(1e-3)
    torch.testing.assert_close(first.weight, second.weight, atol=2e-4, rtol=0)
    other = blobs(100, 20, classes=3)
    assert not RegularizationPath(other).start_from(begun)


def test_a_sweep_takes_few_passes_and_is_as_accurate_as_the_minima(blobs, monkeypatch):
    train, held = blobs(3000, 24, classes=10, noise=3.0), blobs(1500, 24, classes=10, noise=3.0, seed=1)
    exact = [RegularizationPath(train).solve(strength).accuracy(held) for strength in STRENGTHS]
    module = sys.modules["wildfern.ssl.evaluation.protocols.logistic_regression"]
    monkeypatch.setattr(module, "FLOAT64_UP_TO", 0)
    found = list(compared(RegularizationPath, train, torch.arange(3000), STRENGTHS, SILENT, ""))
    assert [one.accuracy(held) for one in found] == pytest.approx(exact, abs=0.002)


def test_probabilities_are_calibrated_on_held_out_train(blobs):
    train, test = blobs(1500, 24, classes=5, noise=6.0), blobs(4000, 24, classes=5, noise=6.0, seed=1)
    # With weak regularization the fit is too sure of itself.
    result = linear_probe(
        Features(train.x.repeat(1, 3) + torch.randn(1500, 72), train.y), Features(test.x.repeat(1, 3), test.y)
    )
    predictions = result.predictions(test.y)
    scores = {score.metric: score.value for score in calibration_scores(predictions)}
    assert predictions.temperature == result.classifier.temperature
    assert 0.05 < predictions.temperature < 20
    assert scores["scaled_negative_log_likelihood"] < scores["negative_log_likelihood"] + 0.02
    assert torch.equal(
        predictions.logits.argmax(1), torch.searchsorted(predictions.classes, predictions.ranked[:, 0].contiguous())
    )


def test_accuracy_is_sklearns_at_the_chosen_strength(blobs):
    train, test = blobs(400, seed=1), blobs(333, seed=2)
    result = linear_probe(train, test)
    scaler = StandardScaler().fit(train.x.double().numpy())
    model = LogisticRegression(C=1 / (result.strength * len(train)), tol=1e-10, max_iter=20_000)
    model.fit(scaler.transform(train.x.double().numpy()), train.y.numpy())
    assert result.accuracy == pytest.approx(model.score(scaler.transform(test.x.double().numpy()), test.y.numpy()))
    assert result.strength in STRENGTHS
    assert 0 < result.holdout_accuracy < 1


@pytest.mark.parametrize("n", [120, 1200])  # cross-validation, and a single split
def test_test_labels_never_touch_the_choice(blobs, n):
    train, test = blobs(n, seed=1), blobs(200, seed=2)
    shuffled = Features(test.x.flip(0) * 3, (test.y + 1) % 4)
    honest, other = linear_probe(train, test), linear_probe(train, shuffled)
    assert (honest.strength, honest.holdout_accuracy, honest.detail) == (
        other.strength,
        other.holdout_accuracy,
        other.detail,
    )
    assert honest.accuracy != other.accuracy


def test_two_calls_give_the_same_numbers(blobs):
    train, test = blobs(150), blobs(80, seed=3)
    assert linear_probe(train, test, strengths=FEW, seed=4) == linear_probe(train, test, strengths=FEW, seed=4)


def test_scale_of_features_does_not_matter(blobs):
    train, test = blobs(200), blobs(100, seed=3)
    scaled = [Features(features.x * 1000 + 7, features.y) for features in (train, test)]
    assert linear_probe(*scaled, strengths=FEW).accuracy == pytest.approx(
        linear_probe(train, test, strengths=FEW).accuracy, abs=0.011
    )


def test_constant_features_and_gaps_in_labels_are_fine(blobs):
    train, test = blobs(100), blobs(60, seed=3)
    holed = [Features(torch.cat([f.x, torch.full((len(f), 2), 0.1)], 1), f.y * 10 + 3) for f in (train, test)]
    plain = linear_probe(train, test, strengths=FEW)
    assert linear_probe(*holed, strengths=FEW).accuracy == pytest.approx(plain.accuracy, abs=0.02)


def test_a_label_never_trained_on_counts_as_wrong(blobs):
    train, test = blobs(200, noise=0.01), blobs(40, seed=3, noise=0.01)
    labels = test.y.clone()
    labels[:10] = 77
    assert linear_probe(train, Features(test.x, labels)).accuracy == 0.75


def test_classes_with_one_image_are_always_fitted(blobs):
    train, test = blobs(60), blobs(40, seed=3)
    few = Features(torch.cat([train.x, test.x[:1] + 9]), torch.cat([train.y, torch.tensor([9])]))
    assert 0 <= linear_probe(few, test, strengths=FEW).accuracy <= 1
    single = blobs(4, noise=0.01)
    result = linear_probe(single, blobs(40, seed=3, noise=0.01), strengths=FEW)
    assert result.holdout_accuracy is None
    assert result.accuracy == 1.0
    assert "none to hold out" in result.detail


def test_impossible_requests_are_refused(blobs):
    train, test = blobs(20), blobs(8, seed=3)
    with pytest.raises(ValueError, match="at least two classes"):
        linear_probe(Features(train.x, torch.zeros_like(train.y)), test)
    with pytest.raises(ValueError, match="20 of 20 train images have no label"):
        linear_probe(Features(train.x, -torch.ones_like(train.y)), test)
    with pytest.raises(ValueError, match="NaN"):
        linear_probe(Features(train.x * torch.nan, train.y), test)
    with pytest.raises(ValueError, match="positive"):
        linear_probe(train, test, strengths=(0.0,))
    with pytest.raises(ValueError, match="holdout"):
        linear_probe(train, test, holdout=0.9)


def test_class_ranks_count_within_each_class():
    labels = torch.tensor([3, 1, 3, 3, 1, 0])
    for seed in range(5):
        ranks = class_ranks(labels, seed)
        for label in (0, 1, 3):
            of_class = sorted(ranks[labels == label].tolist())
            assert of_class == list(range(len(of_class)))
    assert len({tuple(class_ranks(labels, seed).tolist()) for seed in range(20)}) > 4


def test_a_feature_that_is_constant_in_train_does_not_count_in_test():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(120, 6, generator=generator), torch.arange(120) % 3
    x[torch.arange(120), y] += 4
    x[:, 4], x[:, 5] = 0, 3.0
    test = Features(x.clone(), y)
    plain = linear_probe(Features(x, y), test)
    test.x[:, 4], test.x[:, 5] = 1e38, -1e30
    assert linear_probe(Features(x, y), test).accuracy == plain.accuracy > 0.9
    assert (plain.classifier.weight[4:] == 0).all()
