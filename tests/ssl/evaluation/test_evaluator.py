"""The built-in evaluators return the numbers of the functions, and read test once."""

import inspect
import statistics

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from wildfern.registry import EVALUATORS
from wildfern.ssl.evaluation import (
    KNN,
    Evaluator,
    FewShot,
    Finetune,
    HeldOut,
    LabeledImages,
    LinearProbe,
    Preprocessing,
    Retrieval,
    Score,
    few_shot,
    finetune,
    knn,
    linear_probe,
    retrieve,
)
from wildfern.ssl.evaluation.protocols.few_shot import STRENGTHS, draw_shots
from wildfern.ssl.evaluation.protocols.knn import knn_rank


def by_metric(scores: list[Score]) -> dict[str, Score]:
    return {score.metric: score for score in scores}


@pytest.mark.parametrize("classes", [4, 7])
@pytest.mark.parametrize(
    ("evaluator", "function"),
    [(LinearProbe(seed=3), lambda *d: linear_probe(*d, seed=3)), (KNN(k=7), lambda *d: knn(*d, k=7))],
)
def test_accuracy_is_that_of_the_function(blobs, evaluator, function, classes):
    train, test = blobs(140, classes=classes, noise=3), blobs(70, classes=classes, seed=5, noise=3)
    result = function(train, test)
    scores = by_metric(evaluator(train, HeldOut(test)))
    assert scores["accuracy"].value == result.accuracy
    assert ("top5_accuracy" in scores) == (classes > 5)
    expected = balanced_accuracy_score(test.y.numpy(), result.ranked[:, 0].numpy())
    assert scores["balanced_accuracy"].value == pytest.approx(expected)
    assert result.detail in scores["accuracy"].detail
    assert evaluator.describe() == result.protocol


def test_few_shot_gives_mean_and_deviation_over_the_draws(blobs):
    train, test = blobs(140, classes=7), blobs(70, classes=7, seed=3)
    results = few_shot(train, test, shots=3, seeds=4)
    for classifier, result in results.items():
        evaluator = FewShot(classifier=classifier, shots=3, seeds=4)
        scores = by_metric(evaluator(train, HeldOut(test)))
        accuracy = scores["accuracy"]
        assert accuracy.value == result.mean
        reach = student_t.ppf(0.975, 3) * result.std / 2
        assert accuracy.low == pytest.approx(max(0.0, result.mean - reach))
        assert accuracy.high == pytest.approx(min(1.0, result.mean + reach))
        assert f"standard deviation {100 * result.std:.1f} points" in accuracy.detail
        assert evaluator.describe() == result.protocol
        draws = [draw_shots(train, 3, seed) for seed in range(4)]
        if classifier == "linear":
            ranked = [linear_probe(d, test, strengths=STRENGTHS, seed=s).ranked for s, d in enumerate(draws)]
        else:
            ranked = [knn(d, test, k=3).ranked for d in draws]
        balanced = [balanced_accuracy_score(test.y.numpy(), r[:, 0].numpy()) for r in ranked]
        assert scores["balanced_accuracy"].value == pytest.approx(statistics.fmean(balanced))
        reach = student_t.ppf(0.975, 3) * statistics.stdev(balanced) / 2
        assert scores["balanced_accuracy"].high == pytest.approx(min(1.0, statistics.fmean(balanced) + reach))
    assert by_metric(FewShot(shots=3, seeds=1)(train, HeldOut(test)))["accuracy"].low is None


def test_finetune_is_that_of_the_function():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    rng = np.random.default_rng(0)
    y, pixels = np.arange(60) % 3, rng.integers(0, 200, (60, 12, 12, 3)).astype(np.uint8)
    pixels[y == 0, ::2] += 50
    train, test = (pixels[:40], y[:40]), (pixels[40:], y[40:])
    expected = finetune(backbone, *train, *test, epochs=2, batch_size=8)
    settings = Preprocessing()
    data = [LabeledImages(*part, backbone, settings) for part in (train, test)]
    scores = by_metric(Finetune(epochs=2, batch_size=8)(data[0], HeldOut(data[1])))
    assert scores["accuracy"].value == expected.accuracy
    assert scores["accuracy"].n == 20
    balanced = balanced_accuracy_score(y[40:], expected.ranked[:, 0].numpy())
    assert scores["balanced_accuracy"].value == pytest.approx(balanced)


def test_a_class_without_votes_is_not_a_prediction_of_knn(blobs):
    train, test = blobs(70, classes=7), blobs(7, classes=7, seed=5)
    ranked = knn_rank(train, test.x, k=2)
    assert ranked.shape == (7, 5)
    assert (ranked[:, 2:] == -1).all()
    scores = by_metric(KNN(k=1)(train, HeldOut(test)))
    assert scores["top5_accuracy"].value == scores["accuracy"].value


def test_test_can_be_read_once(blobs):
    held = HeldOut(blobs(8))
    assert len(held.read()) == 8
    with pytest.raises(RuntimeError, match="choose everything on train"):
        held.read()


class ReadBeforeChoosing(HeldOut):
    """Fails when it is read while `chosen` is still empty."""

    def __init__(self, data, chosen):
        super().__init__(data)
        self.chosen = chosen

    def read(self):
        assert self.chosen, "test was read before anything was fitted"
        return super().read()


def test_the_linear_probe_reads_test_after_its_fit(blobs, monkeypatch):
    import sys

    module, fitted = sys.modules["wildfern.ssl.evaluation.protocols.linear_probe"], []
    fit = module._choose_and_fit

    def choose_and_fit(*arguments):
        fitted.append(fit(*arguments))
        return fitted[0]

    monkeypatch.setattr(module, "_choose_and_fit", choose_and_fit)
    assert LinearProbe()(blobs(60), ReadBeforeChoosing(blobs(20, seed=3), fitted))


def test_finetuning_reads_test_after_the_last_epoch(monkeypatch):
    import sys

    module, steps = sys.modules["wildfern.ssl.evaluation.protocols.finetune"], []
    monkeypatch.setattr(module, "_warm_cosine", lambda step, total, warmup: steps.append(step == total - 1) or 1.0)

    class Last(HeldOut):
        def read(self):
            assert steps[-1], "test was read before the last step"
            return super().read()

    y, pixels = np.arange(20) % 2, np.zeros((20, 8, 8, 3), np.uint8)
    data = LabeledImages(pixels, y, nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), Preprocessing())
    assert Finetune(epochs=2, batch_size=10)(data, Last(data))
    assert len(steps) == 4


@pytest.mark.parametrize("name", ["linear", "knn", "finetune", "few_shot", "retrieval"])
def test_the_arguments_are_keyword_only_typed_and_have_the_functions_defaults(name):
    component = EVALUATORS[name]
    assert issubclass(component, Evaluator)
    parameters = inspect.signature(component).parameters
    assert all(p.kind is p.KEYWORD_ONLY and p.annotation is not p.empty for p in parameters.values())
    function = {"linear": linear_probe, "knn": knn, "finetune": finetune, "few_shot": few_shot}.get(name)
    if function is not None:
        defaults = {key: p.default for key, p in inspect.signature(function).parameters.items()}
        shared = {key: p.default for key, p in parameters.items() if key in defaults}
        assert shared == {key: defaults[key] for key in shared}
        assert len(shared) >= 3


@pytest.mark.parametrize(
    ("evaluator", "arguments"),
    [
        (KNN, {"k": 0}),
        (KNN, {"temperature": 0.0}),
        (LinearProbe, {"strengths": ()}),
        (LinearProbe, {"holdout": 0.7}),
        (FewShot, {"shots": 0}),
        (FewShot, {"seeds": 0}),
        (Finetune, {"epochs": 0}),
    ],
)
def test_impossible_arguments_are_refused_when_built(evaluator, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        evaluator(**arguments)


def test_an_empty_test_split_is_one_clear_error(blobs):
    train, empty = blobs(20), blobs(4)[:0]
    words = "the test split has no images to score"
    for evaluator in (LinearProbe(), KNN(), FewShot(), Retrieval(), Retrieval(gallery="test")):
        with pytest.raises(ValueError, match=words):
            evaluator(train, HeldOut(empty))
    for function in (linear_probe, knn, few_shot, retrieve):
        with pytest.raises(ValueError, match=words):
            function(train, empty)
    pixels, y = np.zeros((8, 8, 8, 3), np.uint8), np.arange(8) % 2
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    with pytest.raises(ValueError, match=words):
        finetune(network, pixels, y, pixels[:0], y[:0], epochs=1)
    data = [LabeledImages(pixels[:n], y[:n], network, Preprocessing()) for n in (8, 0)]
    with pytest.raises(ValueError, match=words):
        Finetune(epochs=1)(data[0], HeldOut(data[1]))
