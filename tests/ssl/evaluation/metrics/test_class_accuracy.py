"""Accuracy of the classes, by scikit-learn's recall and by the formulas of long-tailed recognition; confusions by a loop."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score

from wildfern.ssl.evaluation import wilson_interval
from wildfern.ssl.evaluation.evaluator import Predictions
from wildfern.ssl.evaluation.metrics.bootstrap import mean_interval
from wildfern.ssl.evaluation.metrics.class_accuracy import class_accuracies, class_scores, shot_scores
from wildfern.ssl.evaluation.metrics.confusion import Confusion, confusion_counts, top_confusions
from wildfern.ssl.evaluation.metrics.label_counts import LabelCounts

CLASSES = 6
TRAIN = LabelCounts(1000, {0: 300, 1: 101, 2: 100, 3: 20, 4: 19, 9: 460})  # none of class 5


@pytest.fixture
def predictions() -> Predictions:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(CLASSES, (240,), generator=generator)
    guesses = torch.where(
        torch.rand(240, generator=generator) < 0.6, labels, torch.randint(-1, CLASSES, (240,), generator=generator)
    )
    return Predictions(labels, guesses[:, None])


def test_rows_are_scikit_learns_recall(predictions):
    rows = class_accuracies(predictions, TRAIN, ["ant", "bee", "cat"])
    y, guesses = predictions.labels.numpy(), predictions.ranked[:, 0].numpy()
    recall = recall_score(y, guesses, labels=range(CLASSES), average=None)
    assert [row.accuracy for row in rows] == pytest.approx(recall)
    assert [(row.label, row.name, row.train) for row in rows] == [
        (0, "ant", 300), (1, "bee", 101), (2, "cat", 100), (3, "3", 20), (4, "4", 19), (5, "5", 0),
    ]  # fmt: skip
    assert [row.n for row in rows] == np.bincount(y).tolist()
    assert rows[2].interval == wilson_interval(rows[2].right, rows[2].n)


def test_the_worst_class_and_the_deviation(predictions):
    rows = class_accuracies(predictions, TRAIN)
    scores = {score.metric: score for score in class_scores(predictions, TRAIN)}
    accuracies = [row.accuracy for row in rows]
    assert scores["worst_class_accuracy"].value == min(accuracies)
    assert scores["class_accuracy_std"].value == pytest.approx(np.std(accuracies))
    assert list(scores)[2:] == ["many_shot_accuracy", "medium_shot_accuracy", "few_shot_accuracy"]


def test_many_medium_and_few_as_liu_et_al(predictions):
    scores = {score.metric.partition("_")[0]: score for score in shot_scores(predictions, TRAIN)}
    members: dict[str, list[int]] = {"many": [], "medium": [], "few": []}
    for label in range(CLASSES):
        n = TRAIN.of_class.get(label, 0)
        members["many" if n > 100 else "few" if n < 20 else "medium"].append(label)
    assert members == {"many": [0, 1], "medium": [2, 3], "few": [4, 5]}
    right = predictions.right.numpy()
    for kind, classes in members.items():
        score, y = scores[kind], predictions.labels.numpy()
        images = np.isin(y, classes)
        assert score.value == pytest.approx(np.mean([right[y == label].mean() for label in classes]))
        assert (score.n, len(score.per_image)) == (images.sum(), images.sum())
        assert ((score.per_image > 0) == right[images]).all()
        assert (score.low, score.high) == mean_interval(score.per_image)
    assert scores["few"].detail.startswith("mean of 2 classes with fewer than 20 train images; 95 % interval from")


def test_shot_scores_need_classes_of_two_kinds(predictions):
    assert shot_scores(predictions, LabelCounts(0, dict.fromkeys(range(CLASSES), 50))) == []
    two = shot_scores(predictions, LabelCounts(0, {**dict.fromkeys(range(CLASSES), 50), 0: 5, 9: 500}))
    assert [score.metric for score in two] == ["medium_shot_accuracy", "few_shot_accuracy"]


def test_one_class_has_no_spread_and_labels_are_needed():
    one = Predictions(torch.tensor([4, 4]), torch.tensor([[4], [3]]))
    assert class_scores(one, TRAIN) == []
    with pytest.raises(ValueError, match=r"1 of 2 test images have no label \(-1\)"):
        class_accuracies(Predictions(torch.tensor([4, -1]), one.ranked), TRAIN)


def test_confusions_are_scikit_learns_matrix(predictions):
    y, guesses = predictions.labels.tolist(), predictions.ranked[:, 0].tolist()
    counts = confusion_counts(predictions)
    assert counts == Counter(zip(y, guesses, strict=True))
    assert list(counts) == sorted(counts)
    matrix = confusion_matrix(y, guesses, labels=range(-1, CLASSES))
    assert all(matrix[true + 1, guess + 1] == count for (true, guess), count in counts.items())
    found = top_confusions(counts, 4)
    expected = sorted(
        ((count, true, guess) for (true, guess), count in counts.items() if guess not in (-1, true)), reverse=True
    )
    assert [one.count for one in found] == [count for count, _, _ in expected[:4]]
    assert all(one.n == y.count(one.true) and one.count == counts[one.true, one.predicted] for one in found)


def test_of_equal_confusions_the_larger_share_comes_first():
    counts = {(0, 0): 9, (0, 1): 2, (1, 0): 2, (1, -1): 5, (2, 0): 2, (2, 2): 1}
    found = top_confusions(counts)
    assert found == [Confusion(2, 0, 2, 3), Confusion(1, 0, 2, 7), Confusion(0, 1, 2, 11)]
    assert found[0].interval == wilson_interval(2, 3)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        top_confusions(counts, 0)
