"""Accuracy of groups of test images: by a loop, with small groups together and unknown ones apart."""

import numpy as np
import pytest
import torch

from wildfern.ssl.data.groups import Groups, crossed
from wildfern.ssl.evaluation.evaluator import Predictions
from wildfern.ssl.evaluation.metrics.group_accuracy import group_accuracies, group_scores

SIZES = {"a": 40, "b": 3, "c": 25, "d": 10, "e": 9, "": 7}


@pytest.fixture
def grouped() -> tuple[Predictions, Groups, np.ndarray]:
    rng = np.random.default_rng(5)
    values = np.array([name for name, n in SIZES.items() for _ in range(n)])[rng.permutation(sum(SIZES.values()))]
    labels = torch.from_numpy(rng.integers(4, size=len(values)))
    guesses = torch.where(torch.from_numpy(rng.random(len(values)) < 0.7), labels, (labels + 1) % 4)
    return Predictions(labels, guesses[:, None]), Groups.of("hospital", values.tolist()), values


def test_groups_are_counted_as_in_a_loop(grouped):
    predictions, groups, values = grouped
    found = group_accuracies(predictions, groups)
    right = predictions.right.numpy()
    assert [(part.name, part.n, part.right) for part in found.compared] == [
        (name, SIZES[name], right[values == name].sum()) for name in "acd"
    ]
    rest = np.isin(values, ["b", "e"])
    assert (found.other.name, found.other.n, found.other.right) == ("other (2 groups)", 12, right[rest].sum())
    assert (found.unknown.name, found.unknown.n, found.unknown.right) == ("unknown", 7, right[values == ""].sum())
    assert sum(part.n for part in found.rows) == len(predictions)
    assert sum(part.right for part in found.rows) == right.sum()


def test_scores_are_of_the_compared_groups(grouped):
    predictions, groups, values = grouped
    worst, gap, std = group_scores(group_accuracies(predictions, groups))
    accuracies = [predictions.right.numpy()[values == name].mean() for name in "acd"]
    assert (worst.metric, worst.value) == ("worst_group_accuracy (hospital)", min(accuracies))
    assert (gap.metric, gap.value) == ("group_accuracy_gap (hospital)", pytest.approx(np.ptp(accuracies)))
    assert (std.metric, std.value) == ("group_accuracy_std (hospital)", pytest.approx(np.std(accuracies)))
    assert worst.n == gap.n == std.n == 75
    assert all(
        s.detail.startswith("test images left out: other (2 groups): 12, unknown: 7; ") for s in (worst, gap, std)
    )


def test_all_groups_may_be_compared(grouped):
    predictions, groups, _ = grouped
    found = group_accuracies(predictions, groups[np.arange(len(predictions))], least=1)
    assert ([part.name for part in found.compared], found.other) == (list("abcde"), None)


def test_worst_group_of_label_and_place():
    """Waterbirds: the groups are class and background together."""
    labels = [0] * 20 + [1] * 20
    place = ([0] * 10 + [1] * 10) * 2
    ranked = torch.tensor([0] * 10 + [0] * 7 + [1] * 3 + [1] * 4 + [0] * 6 + [1] * 10)[:, None]
    groups = crossed(Groups.of("y", labels), Groups.of("place", place))
    worst = group_scores(group_accuracies(Predictions(torch.tensor(labels), ranked), groups))[0]
    assert (worst.value, worst.metric) == (0.4, "worst_group_accuracy (y × place)")
    assert "lowest of 4 groups: y 1, place 0, 4 of 10 right" in worst.detail


def test_less_than_two_groups_are_not_compared(grouped):
    predictions, groups, _ = grouped
    assert group_scores(group_accuracies(predictions, groups, least=26)) == []
    with pytest.raises(ValueError, match="least is a number of test images of at least 1, got 0"):
        group_accuracies(predictions, groups, least=0)
    with pytest.raises(ValueError, match="the groups by hospital are of 2 images, but 94 test images were classified"):
        group_accuracies(predictions, groups[[0, 1]])
