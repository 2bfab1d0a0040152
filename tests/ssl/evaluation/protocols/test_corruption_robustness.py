import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from wildfern.generators.counter_rng import fold, key
from wildfern.ssl.evaluation import HeldOut, LinearProbe, Preprocessing, extract_features, knn
from wildfern.ssl.evaluation.corruptions.all_corruptions import COMMON, corrupt
from wildfern.ssl.evaluation.evaluator import LabeledImages
from wildfern.ssl.evaluation.metrics.bootstrap import mean_interval
from wildfern.ssl.evaluation.protocols import corruption_robustness
from wildfern.ssl.evaluation.protocols.corruption_robustness import (
    Corruptions,
    effective_robustness,
    mean_corruption_error,
)
from wildfern.ssl.evaluation.protocols.linear_probe import fit_linear_probe

FEW = ("contrast", "gaussian_noise", "fog")
STRENGTHS = (1.0, 0.1)  # quickly solved


@pytest.fixture(autouse=True)
def few_strengths(monkeypatch):
    def fit(train, **options):
        return fit_linear_probe(train, **options, strengths=STRENGTHS)

    monkeypatch.setattr(corruption_robustness, "fit_linear_probe", fit)


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture
def images(backbone):
    """Noisy stripes of one of three widths."""

    def make(n, seed=0, size=16):
        rng, y = np.random.default_rng(seed), np.arange(n) % 3
        stripes = np.stack([np.arange(size) // (label + 1) % 2 for label in y]) * 70
        pixels = stripes[:, :, None, None] + rng.integers(0, 186, (n, size, size, 3))
        return LabeledImages(pixels.astype(np.uint8), y, backbone, Preprocessing(size=size))

    return make


def features(images, pixels=None):
    pixels = images.pixels if pixels is None else pixels
    return extract_features(images.backbone, [(pixels, np.resize(images.y, len(pixels)))])


def corrupted(images, name, severity, seed=0):
    keys = fold(np.uint64(key("corruptions", seed)), np.arange(len(images)))
    found = corrupt(torch.from_numpy(images.pixels).permute(0, 3, 1, 2) / 255, name, severity, keys)
    return (found * 255).round().byte().permute(0, 2, 3, 1).numpy()


def by_metric(scores):
    return {score.metric: score for score in scores}


@pytest.mark.parametrize("classifier", ["linear", "knn"])
def test_scores_are_those_of_the_classifier_on_corrupted_images(images, classifier):
    train, test, severities = images(90), images(70, seed=1), (1, 4)
    options = {"names": FEW, "severities": severities, "classifier": classifier}
    scores = Corruptions(**options)(train, HeldOut(test))

    pixels = [test.pixels, *(corrupted(test, name, severity) for name in FEW for severity in severities)]
    found = features(test, np.concatenate(pixels))
    if classifier == "knn":
        right = (knn(features(train), found).ranked[:, 0] == found.y).numpy()
    else:
        right = LinearProbe(strengths=STRENGTHS)(features(train), HeldOut(found))[0].per_image == 1
    clean, each = right[:70], right[70:].reshape(len(FEW), 2, 70)
    expected = {
        "corrupted_accuracy": each.mean(),
        "clean_accuracy": clean.mean(),
        "relative_robustness": each.mean() / clean.mean(),
        **{f"{name}_accuracy": values.mean() for name, values in zip(FEW, each, strict=True)},
        "severity_1_accuracy": each[:, 0].mean(),
        "severity_4_accuracy": each[:, 1].mean(),
    }
    assert {score.metric: score.value for score in scores} == pytest.approx(expected)
    assert next(iter(expected)) == scores[0].metric
    assert 0.34 < each.mean() < clean.mean()  # the classifier learns, and corruptions matter
    assert scores[0].per_image == pytest.approx(each.mean((0, 1)))
    assert (scores[0].low, scores[0].high) == pytest.approx(mean_interval(scores[0].per_image))
    for score in scores:
        assert score.n == 70
        assert score.low < score.value < score.high
        assert "95 %" in score.detail
        assert score.share == (score.metric != "relative_robustness")
        assert score.per_image is None or score.per_image.mean() == pytest.approx(score.value)


def test_everything_is_chosen_before_test_is_read_once(images, monkeypatch):
    train, test = images(60), images(30, seed=1)
    events = []

    class Watched(HeldOut):
        def read(self):
            events.append("test")
            return super().read()

    def fit(*arguments, **options):
        events.append("fit")
        return chosen(*arguments, **options)

    chosen = corruption_robustness.fit_linear_probe
    monkeypatch.setattr(corruption_robustness, "fit_linear_probe", fit)
    evaluator = Corruptions(names=FEW[:1], severities=(1,))
    scores = evaluator(train, Watched(test))
    assert events == ["fit", "test"]
    other = evaluator(train, HeldOut(replace(test, y=(test.y + 1) % 3)))
    assert [score.detail for score in other] == [score.detail for score in scores]  # with the strength
    assert other[1].value < 0.5 < scores[1].value


def test_a_part_of_test_is_drawn_by_seed_and_keeps_its_corruptions(images):
    train, test = images(60), images(60, seed=1)
    options = {"names": ("gaussian_noise",), "severities": (3,), "classifier": "knn"}
    whole = Corruptions(**options)(train, HeldOut(test))
    parts = [Corruptions(**options, images=25, seed=seed)(train, HeldOut(test)) for seed in (0, 0, 1)]
    assert [score.n for score in parts[0]] == [25] * 5
    assert parts[0] == parts[1]
    evaluators = [Corruptions(images=25, seed=seed) for seed in (0, 1)]
    places = [evaluator._places(60) for evaluator in evaluators]
    assert not np.array_equal(*places)
    assert len(set(places[0])) == 25
    for index in (0, 1):
        assert np.array_equal(parts[0][index].per_image, whole[index].per_image[places[0]])
    assert np.array_equal(Corruptions(images=100)._places(60), np.arange(60))


def test_progress_counts_every_image_under_every_condition(images):
    counts = []

    class Watched:
        def count(self, done, total, unit, detail=None):
            counts.append((done, total, detail))

        def detail(self, text):
            pass

    evaluator = Corruptions(names=FEW[:2], severities=(1, 2), classifier="knn")
    evaluator.progress = Watched()
    evaluator(images(30), HeldOut(images(70, seed=1)))
    assert counts[0] == (30, 30, None)
    assert [done for done, _, _ in counts[1:]] == [70 * run + start for run in range(5) for start in (0, 64)]
    assert {total for _, total, _ in counts[1:]} == {350}
    assert counts[-1][2] == "gaussian_noise, severity 2"


def test_classes_without_train_images_and_no_clean_image_right(images):
    train, test = images(60), images(20, seed=1)
    test = replace(test, y=test.y + 7)
    scores = by_metric(Corruptions(names=FEW[:1], severities=(2,))(train, HeldOut(test)))
    assert "relative_robustness" not in scores  # 0 / 0
    assert scores["clean_accuracy"].value == scores["corrupted_accuracy"].value == 0
    assert "no train image has their class: 20 of 20 test images" in scores["corrupted_accuracy"].detail


def test_it_says_what_it_does():
    words = Corruptions().describe()
    assert words.startswith(
        "mean accuracy over the 15 common corruptions, severities 1, 2, 3, 4, 5, of the resized image"
    )
    assert LinearProbe().describe() in words
    words = Corruptions(names=("fog",), severities=(2,), classifier="knn", k=5, images=9).describe()
    assert words.startswith("mean accuracy of at most 9 test images (seed 0) over fog, severity 2, ")
    assert "k=5" in words
    assert set(Corruptions().names) == set(COMMON)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"names": ("rain",)}, "corruption='rain' is not known"),
        ({"names": ()}, "names needs one or more values"),
        ({"severities": (1, 1)}, "severities needs one or more values, none of them twice"),
        ({"severities": (0,)}, "severity must lie between 1 and 5"),
        ({"classifier": "tree"}, "classifier is 'linear' or 'knn'"),
        ({"images": 0}, "at least 1"),
        ({"k": 0}, "k and temperature are positive"),
    ],
)
def test_impossible_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Corruptions(**arguments)


def test_unsuitable_images_and_diverged_backbones_are_refused_before_test_is_read(images, backbone):
    evaluator = Corruptions()
    train, test = images(30), HeldOut(images(30, seed=1))
    unsuitable = {
        "16 × 12 px cannot be corrupted": replace(train, pixels=train.pixels[:, :, :12]),
        "snow is defined for RGB and gray images": replace(train, pixels=train.pixels[..., [0, 0, 1, 2]]),
        "one label per image": replace(train, y=np.eye(3, dtype=np.uint8)[train.y]),
    }
    for words, given in unsuitable.items():
        with pytest.raises(ValueError, match=words):
            evaluator(given, test)
    with pytest.raises(ValueError, match="4 px are too small"):
        evaluator.check_network(backbone, 4)
    backbone[0].weight.data[:] = math.nan
    for classifier in ("linear", "knn"):
        with pytest.raises(ValueError, match="the backbone has diverged"):
            Corruptions(classifier=classifier)(train, test)
    assert len(test.read()) == 30


def test_mean_corruption_error_is_relative_to_the_baseline():
    errors, baseline = {"fog": [0.1, 0.3], "snow": [0.5, 0.6]}, {"snow": [0.5, 0.5], "fog": [0.2, 0.6]}
    assert mean_corruption_error(errors, baseline) == pytest.approx((0.4 / 0.8 + 1.1 / 1.0) / 2)
    assert mean_corruption_error(baseline, baseline) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="need a baseline of the same"):
        mean_corruption_error({"fog": [0.1, 0.3]}, baseline)
    for other in ({**baseline, "fog": [0.2]}, {**baseline, "fog": [0.0, 0.0]}):
        with pytest.raises(ValueError, match="fog: both need an error for each severity"):
            mean_corruption_error(errors, other)


def test_effective_robustness_is_what_the_line_in_logits_does_not_explain():
    def logit(p):
        return math.log(p / (1 - p))

    clean, shifted = [0.6, 0.7, 0.8, 0.9], [0.35, 0.5, 0.55, 0.75]
    x, y = [logit(p) for p in clean], [logit(p) for p in shifted]
    mean_x, mean_y = sum(x) / 4, sum(y) / 4
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    expected = 0.7 - 1 / (1 + math.exp(-(mean_y + slope * (logit(0.75) - mean_x))))
    assert effective_robustness(0.75, 0.7, clean, shifted) == pytest.approx(expected)
    assert effective_robustness(0.7, 0.5, [0.6, 0.7], [0.3, 0.5]) == pytest.approx(0, abs=1e-12)  # on the line
    with pytest.raises(ValueError, match="at least two reference networks"):
        effective_robustness(0.75, 0.7, [0.6, 0.6], [0.3, 0.4])
    with pytest.raises(ValueError, match="shares between 0 and 1"):
        effective_robustness(75.0, 70.0, clean, shifted)
