import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from wildfern.ssl.evaluation.metrics.average_precision import (
    average_precision,
    mean_average_precision,
    multi_label_scores,
    resampled_counts,
)

module = sys.modules["wildfern.ssl.evaluation.metrics.average_precision"]


def case(n, classes, seed=0, ties=False):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, classes, generator=generator)
    labels = (scores + 2 * torch.randn(n, classes, generator=generator) > 1).to(torch.uint8)
    return (scores.mul(2).round() if ties else scores), labels


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_scikit_learns_for_every_class(ties):
    scores, labels = case(83, 6, ties=ties)
    labels[:, 2], labels[:, 4] = 0, 1
    scores[:, 3] = 0.5  # constant: the share of positives
    found = average_precision(scores, labels)
    assert np.isnan(found[2])
    expected = [average_precision_score(labels[:, k], scores[:, k]) for k in (0, 1, 3, 4, 5)]
    np.testing.assert_allclose(found[[0, 1, 3, 4, 5]], expected)
    assert found[3] == labels[:, 3].float().mean()
    assert mean_average_precision(scores, labels) == pytest.approx(np.mean(expected))


def test_infinite_scores_are_first_and_last():
    labels = torch.tensor([[1], [0], [1], [0]])
    assert average_precision(torch.tensor([[torch.inf], [2.0], [1.0], [-torch.inf]]), labels) == (1 + 2 / 3) / 2
    assert average_precision(torch.full((4, 1), -torch.inf), labels) == 0.5


@pytest.mark.parametrize("ties", [False, True])
def test_values_and_intervals_match_the_plain_loop(ties, monkeypatch):
    monkeypatch.setattr(module, "DRAWS", 12)
    monkeypatch.setattr(module, "ELEMENTS", 100)  # several blocks
    scores, labels = case(30, 4, seed=1, ties=ties)
    labels[:, 1] = 0
    labels[:, 3] = 0
    labels[7, 3] = 1  # missing in some resamples
    macro, micro = multi_label_scores(scores, labels, "words")
    assert (macro.metric, micro.metric) == ("mean_average_precision", "micro_average_precision")
    assert macro.value == pytest.approx(
        np.mean([average_precision_score(labels[:, k], scores[:, k]) for k in (0, 2, 3)])
    )
    assert micro.value == pytest.approx(average_precision_score(labels.flatten(), scores.flatten()))
    counts = np.concatenate(list(resampled_counts(30, 5)), axis=1)
    assert counts.shape == (30, 12)
    assert (counts.sum(0) == 30).all()
    draws, pooled = [], []
    for column in counts.T:
        rows = np.repeat(np.arange(30), column)
        s, y = scores[rows].numpy(), labels[rows].numpy()
        draws.append(np.mean([average_precision_score(y[:, k], s[:, k]) for k in range(4) if y[:, k].any()]))
        pooled.append(average_precision_score(y.ravel(), s.ravel()))
    assert not counts[7].all()
    for score, values in ((macro, draws), (micro, pooled)):
        reach = 1.959964 * np.std(values, ddof=1)
        assert (score.low, score.high) == pytest.approx((score.value - reach, score.value + reach), abs=1e-6)
        assert score.n == 30
        assert score.detail.startswith("words; ")
        assert "12 bootstrap resamples of 30 test images" in score.detail
    assert "mean over the 3 of 4 classes that test images have" in macro.detail


def test_two_calls_give_the_same_interval_and_bounds_are_shares():
    scores, labels = case(40, 3)
    first = multi_label_scores(scores, labels)
    assert multi_label_scores(scores, labels) == first
    assert all(0 <= score.low < score.value < score.high <= 1 for score in first)
    perfect = multi_label_scores(labels.float(), labels)
    assert [score.high for score in perfect] == [1.0, 1.0]


def test_one_image_has_no_interval_and_no_positive_has_no_value():
    alone = multi_label_scores(torch.tensor([[1.0, 2.0]]), torch.tensor([[1, 0]]))
    assert [(score.value, score.low, score.high) for score in alone] == [(1.0, None, None), (0.5, None, None)]
    assert "no interval from one test image" in alone[0].detail
    with pytest.raises(ValueError, match="no test image has any of the classes"):
        multi_label_scores(torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\[N, K\], got \[3, 2\] and \[3\]"):
        multi_label_scores(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="NaN"):
        average_precision(torch.full((3, 1), torch.nan), torch.ones(3, 1))
