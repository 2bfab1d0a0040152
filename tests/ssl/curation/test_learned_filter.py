"""The learned filter against the same steps made of scikit-learn's own cross-validation."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.preprocessing import StandardScaler

from wildfern.ssl.curation.learned_filter import STRENGTHS, learned_filter
from wildfern.ssl.data import DataError


@pytest.fixture
def few_strengths(monkeypatch):
    monkeypatch.setattr("wildfern.ssl.curation.learned_filter.STRENGTHS", (1e-3, 1e-1))


def marked_features(n=400, dim=6, marks=80, signal=1.0, seed=0):
    """Features, the truth for all, and marks for some."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim)) * rng.uniform(0.1, 50, dim) + rng.normal(size=dim) * 20
    z = (x - x.mean(0)) / x.std(0)
    truth = (signal * z[:, :2].sum(1) + 0.5 * rng.normal(size=n) > 0.4).astype(np.int8)
    marked = np.full(n, -1, np.int8)
    chosen = rng.choice(n, marks, replace=False)
    marked[chosen] = truth[chosen]
    return torch.from_numpy(x).float(), truth, marked


def test_scores_and_accuracy_match_nested_grid_search():
    seed = 3
    features, _, marks = marked_features()
    found = learned_filter(features, marks, seed=seed)

    x, known = StandardScaler().fit_transform(features.double().numpy()), marks >= 0
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": STRENGTHS}, scoring="neg_log_loss", cv=folds)
    expected = search.fit(x[known], marks[known]).predict_proba(x)[:, 1]
    np.testing.assert_allclose(found.scores.numpy(), expected, atol=2e-5)
    outer = cross_validate(search, x[known], marks[known], cv=folds, scoring=["accuracy", "roc_auc"])
    assert found.accuracy == pytest.approx(outer["test_accuracy"].mean())  # five folds of 16
    assert found.auc == pytest.approx(outer["test_roc_auc"].mean())
    assert (found.n_keep, found.n_drop) == ((marks == 1).sum(), (marks == 0).sum())
    assert found.scores.dtype == torch.float32


def test_accuracy_and_auc_predict_those_of_the_unmarked():
    features, truth, marks = marked_features(n=2000, marks=300)
    found = learned_filter(features, torch.from_numpy(marks))
    scores, unmarked = found.scores.numpy(), marks < 0
    assert found.accuracy == pytest.approx(((scores > 0.5) == truth)[unmarked].mean(), abs=0.04)
    assert found.auc == pytest.approx(roc_auc_score(truth[unmarked], scores[unmarked]), abs=0.03)
    assert found.accuracy > 0.85


def test_marks_without_a_pattern_are_not_learned(few_strengths):
    """40 dimensions and 60 random marks: fitted marks would be nearly all right, held-out ones are half right."""
    accuracies, areas = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        marks = rng.permutation(np.repeat([0, 1], 30)).astype(np.int8)
        found = learned_filter(torch.from_numpy(rng.normal(size=(60, 40))), marks, seed=seed)
        accuracies.append(found.accuracy)
        areas.append(found.auc)
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.1)
    assert np.mean(areas) == pytest.approx(0.5, abs=0.1)


def test_separable_marks_and_constant_columns(few_strengths):
    features, _, marks = marked_features()
    features[:, 3] = 7.3
    features[:, 4] = 0
    features[:, 0] = torch.from_numpy(np.where(np.arange(400) % 2, 5.0, -5.0))
    marks[marks >= 0] = (np.arange(400) % 2)[marks >= 0]
    found = learned_filter(features, marks)
    assert (found.accuracy, found.auc) == (1.0, 1.0)
    assert (found.scores > 0.5).tolist() == (np.arange(400) % 2 == 1).tolist()


def test_the_seed_decides_the_folds_only(few_strengths):
    features, _, marks = marked_features(signal=0.3)
    one, same, other = (learned_filter(features, marks, seed=seed) for seed in (0, 0, 5))
    assert torch.equal(one.scores, same.scores)
    assert one[1:] == same[1:]
    assert one[1:] != other[1:]


def test_ten_marks_of_either_kind_are_needed(few_strengths):
    features = torch.eye(40)
    marks = np.array([1] * 10 + [0] * 9 + [-1] * 21)
    with pytest.raises(
        DataError, match="at least 10 images marked keep and 10 marked drop, got 10 and 9; mark some more"
    ):
        learned_filter(features, marks)
    marks[19] = 0
    assert learned_filter(features, marks)[-2:] == (10, 10)


@pytest.mark.parametrize("marks", [np.ones(3), np.full(40, 2), np.ones((40, 1)), np.full(40, 0.5)])
def test_other_marks_are_refused(marks):
    with pytest.raises(DataError, match=r"marks must be 1 \(keep\), 0 \(drop\) or -1 \(unmarked\), one for each of 40"):
        learned_filter(torch.eye(40), marks)


def test_unusable_features_are_refused():
    with pytest.raises(DataError, match="row 0 of the features contains NaN"):
        learned_filter(torch.full((40, 2), torch.nan), np.zeros(40))
