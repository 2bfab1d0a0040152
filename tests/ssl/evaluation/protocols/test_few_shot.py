import math
import statistics

import numpy as np
import pytest
import torch
from scipy import stats

from wildfern.ssl.evaluation import Features, FewShot, HeldOut, few_shot, knn, linear_probe
from wildfern.ssl.evaluation.protocols import logistic_regression
from wildfern.ssl.evaluation.protocols.few_shot import STRENGTHS, draw_shots, mean_over_draws


def test_a_draw_has_so_many_of_every_class_and_draws_differ(blobs):
    train = blobs(100)
    draws = [draw_shots(train, 5, seed) for seed in range(4)]
    for drawn in draws:
        assert torch.unique(drawn.y, return_counts=True)[1].tolist() == [5, 5, 5, 5]
    assert not torch.equal(draws[0].x, draws[1].x)
    assert torch.equal(draw_shots(train, 5, 2).x, draws[2].x)


def test_mean_and_deviation_are_those_of_the_single_draws(blobs):
    train, test = blobs(100), blobs(60, seed=3)
    results = few_shot(train, test, shots=3, seeds=3)
    draws = [draw_shots(train, 3, seed) for seed in range(3)]
    by_hand = {
        "linear": [
            linear_probe(drawn, test, strengths=STRENGTHS, seed=seed).accuracy for seed, drawn in enumerate(draws)
        ],
        "knn": [knn(drawn, test, k=3).accuracy for drawn in draws],
    }
    for protocol, values in by_hand.items():
        assert results[protocol].accuracies == tuple(values)
        assert results[protocol].mean == pytest.approx(statistics.fmean(values))
        assert results[protocol].std == pytest.approx(statistics.stdev(values))
        assert "3 labeled images of each class" in results[protocol].protocol


def test_one_shot_one_seed_and_small_classes(blobs):
    train, test = blobs(10), blobs(20, seed=3)
    assert few_shot(train, test, shots=1, seeds=1)["linear"].std is None
    assert "smallest class has only 2" in few_shot(train, test, shots=5, seeds=1, protocols=("knn",))["knn"].detail


def test_impossible_settings_are_refused(blobs):
    with pytest.raises(ValueError, match="shots"):
        few_shot(blobs(8), blobs(4), shots=0)
    with pytest.raises(ValueError, match="seeds"):
        few_shot(blobs(8), blobs(4), seeds=0)
    with pytest.raises(ValueError, match="not finetune"):
        few_shot(blobs(8), blobs(4), protocols=("finetune",))


def test_the_interval_over_draws_is_scipys():
    values = [0.71, 0.74, 0.69, 0.80, 0.75]
    mean, low, high = mean_over_draws(values)
    assert mean == pytest.approx(statistics.fmean(values))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 4, loc=mean, scale=stats.sem(values)))
    assert mean_over_draws([0.0, 1.0])[1:] == (0.0, 1.0)  # a share cannot leave [0, 1]
    assert mean_over_draws([0.7]) == (0.7, None, None)


@pytest.mark.parametrize("classifier", ["linear", "knn"])
def test_scores_have_the_interval_over_draws_and_the_mean_of_each_image(blobs, classifier):
    train, test = blobs(40, noise=4), blobs(60, seed=3, noise=4)
    result = few_shot(train, test, shots=2, seeds=3, protocols=(classifier,))[classifier]
    accuracy, balanced = FewShot(classifier=classifier, shots=2, seeds=3)(train, HeldOut(test))
    assert (accuracy.value, accuracy.low, accuracy.high) == mean_over_draws(result.accuracies)
    assert accuracy.low < accuracy.value < accuracy.high
    right = torch.stack([ranked[:, 0] == test.y for ranked in result.ranked]).double().mean(0)
    np.testing.assert_allclose(accuracy.per_image, right, atol=1e-7)
    assert balanced.per_image.mean() == pytest.approx(balanced.value)
    assert f"standard deviation {100 * result.std:.1f} points" in accuracy.detail
    assert "Student's t, 3 draws" in accuracy.detail
    alone = FewShot(classifier=classifier, shots=1, seeds=1)(train, HeldOut(test))[0]
    assert (alone.low, alone.high) == (None, None)
    assert "interval" not in alone.detail


def test_five_draws_unless_another_number_is_given(blobs):
    assert len(few_shot(blobs(40), blobs(20, seed=3), shots=1, protocols=("knn",))["knn"].accuracies) == 5
    assert "mean over 5 draws" in FewShot().describe()


def test_test_is_read_after_the_probes_of_all_draws_are_fitted(blobs, monkeypatch):
    import sys

    module, fitted = sys.modules["wildfern.ssl.evaluation.protocols.few_shot"], []
    fit = module.fit_linear_probe

    def noted(drawn, *, seed, **settings):
        fitted.append(seed)
        return fit(drawn, seed=seed, **settings)

    monkeypatch.setattr(module, "fit_linear_probe", noted)

    class Last(HeldOut):
        def read(self):
            assert fitted == [0, 1, 2]
            return super().read()

    assert FewShot(shots=2, seeds=3)(blobs(40), Last(blobs(20, seed=3)))
    assert fitted == [0, 1, 2]


def separable(scale: float, images: int = 40) -> Features:
    generator = torch.Generator().manual_seed(images)
    y = torch.arange(images) % 4
    return Features((4 * torch.eye(4, 6)[y] + torch.randn(images, 6, generator=generator)) * scale, y)


@pytest.mark.parametrize("float64_up_to", [2**22, 0])
@pytest.mark.parametrize("classifier", ["linear", "knn"])
def test_scores_do_not_depend_on_the_unit_of_the_features(classifier, float64_up_to, monkeypatch):
    monkeypatch.setattr(logistic_regression, "FLOAT64_UP_TO", float64_up_to)
    monkeypatch.setattr(logistic_regression, "COMPARED_IN_FLOAT64_UP_TO", float64_up_to)
    evaluate = FewShot(classifier=classifier, shots=5, seeds=2)
    plain = evaluate(separable(1.0), HeldOut(separable(1.0, 60)))
    assert plain[0].value > 0.8
    for scale in (2.0**-90, 2.0**63, 2.0**90, 2.0**123):
        found = evaluate(separable(scale), HeldOut(separable(scale, 60)))
        assert [score.value for score in found] == pytest.approx([score.value for score in plain], abs=0.02)


def test_test_features_too_large_for_those_of_train_are_refused():
    for scale, words in ((1e37, "are too large for a linear probe"), (math.nan, "contain NaN or infinity")):
        with pytest.raises(ValueError, match=f"the backbone's features {words}: it has diverged"):
            FewShot(shots=5, seeds=2)(separable(1e-20), HeldOut(separable(scale, 60)))
