import math

import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from wildfern.ssl.evaluation import classification_scores, proportion, wilson_interval
from wildfern.ssl.evaluation.metrics.classification_scores import ranked_classes


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (1, 1), (3, 10), (499, 500), (6123, 10_000)])
def test_the_interval_is_scipys_wilson(right, n):
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    score = proportion("accuracy", right, n)
    assert score.low <= score.value == right / n <= score.high
    assert score.n == n
    assert "Wilson" in score.detail


def test_an_interval_needs_an_image():
    with pytest.raises(ValueError, match="at least one image"):
        wilson_interval(0, 0)


def test_scores_are_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(200, 8, generator=generator), torch.randint(8, (200,), generator=generator)
    scores[torch.arange(200), labels] += 1
    ranked = ranked_classes(scores, torch.arange(8))
    found = {score.metric: score for score in classification_scores(ranked, labels, 8)}
    assert list(found) == ["accuracy", "top5_accuracy", "balanced_accuracy"]
    y, guesses = labels.numpy(), scores.argmax(1).numpy()
    assert found["accuracy"].value == (y == guesses).mean()
    assert found["top5_accuracy"].value == pytest.approx(top_k_accuracy_score(y, scores.numpy(), k=5))
    assert found["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(y, guesses))


def test_top5_needs_more_than_five_classes():
    ranked = torch.tensor([[0, 1, 2, 3, 4]])
    assert [score.metric for score in classification_scores(ranked, torch.tensor([4]), 5)] == [
        "accuracy",
        "balanced_accuracy",
    ]


def test_the_interval_of_balanced_accuracy_combines_those_of_the_classes():
    labels = torch.tensor([0] * 10 + [1] * 40)
    right = [8, 20]
    ranked = torch.cat([torch.tensor([0] * 8 + [1] * 2), torch.tensor([1] * 20 + [0] * 20)])[:, None]
    score = classification_scores(ranked, labels, 2)[-1]
    assert score.value == pytest.approx((0.8 + 0.5) / 2)
    bounds = [wilson_interval(hit, n) for hit, n in zip(right, (10, 40), strict=True)]
    below = math.sqrt((0.8 - bounds[0][0]) ** 2 + (0.5 - bounds[1][0]) ** 2) / 2
    above = math.sqrt((0.8 - bounds[0][1]) ** 2 + (0.5 - bounds[1][1]) ** 2) / 2
    assert (score.low, score.high) == pytest.approx((score.value - below, score.value + above))


def test_the_first_of_equal_classes_is_ranked_first_as_argmax_does():
    scores = torch.tensor([[1.0, 3.0, 3.0, 0.0, 0.0, 3.0]])
    classes = torch.arange(10, 16)
    assert ranked_classes(scores, classes).tolist() == [[11, 12, 15, 10, 13]]
    assert classes[scores.argmax(1)].tolist() == [11]
