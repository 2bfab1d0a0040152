import math

import pytest

from wildfern.ssl.evaluation import Features, knn
from wildfern.ssl.evaluation.knn import knn_predict


def plain_loop(bank, queries, k, temperature, weighting):
    predictions = []
    for query in queries.double():
        similarities = []
        for row, label in zip(bank.x.double(), bank.y.tolist(), strict=True):
            similarities.append((float(row @ query / row.norm() / query.norm()), label))
        votes = {}
        for similarity, label in sorted(similarities, reverse=True)[:k]:
            vote = math.exp(similarity / temperature) if weighting == "exponential" else 1
            votes[label] = votes.get(label, 0) + vote
        predictions.append(min(votes, key=lambda label: (-votes[label], label)))
    return predictions


@pytest.mark.parametrize("weighting", ["exponential", "uniform"])
@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (20, 1.0), (500, 0.01)])
def test_predictions_match_the_plain_loop(blobs, k, temperature, weighting):
    bank, queries = blobs(60, noise=3), blobs(25, seed=5, noise=3).x
    found = knn_predict(bank, queries, k=k, temperature=temperature, weighting=weighting, chunk=4)
    assert found.tolist() == plain_loop(bank, queries, k, temperature, weighting)


def test_accuracy_counts_right_predictions_and_names_the_protocol(blobs):
    train, test = blobs(60, noise=3), blobs(25, seed=5, noise=3)
    result = knn(train, test, k=5)
    right = [a == b for a, b in zip(plain_loop(train, test.x, 5, 0.07, "exponential"), test.y.tolist(), strict=True)]
    assert result.accuracy == sum(right) / 25
    assert "cosine" in result.protocol
    assert "k=5" in result.protocol
    assert "0.07" in result.protocol


def test_labels_need_not_be_contiguous(blobs):
    train, test = blobs(60), blobs(25, seed=5)
    spread = knn(Features(train.x, train.y * 100), Features(test.x, test.y * 100))
    assert spread.accuracy == knn(train, test).accuracy


def test_impossible_settings_are_refused(blobs):
    with pytest.raises(ValueError, match="positive"):
        knn(blobs(8), blobs(4), k=0)
    with pytest.raises(ValueError, match="no images"):
        knn(blobs(8)[:0], blobs(4))
