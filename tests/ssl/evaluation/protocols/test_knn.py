import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from wildfern.ssl.evaluation import KNN, Features, HeldOut, knn
from wildfern.ssl.evaluation.protocols.knn import FLOOR, choose_knn, knn_predict, knn_rank, knn_scores
from wildfern.ssl.evaluation.protocols.neighbor_votes import vote_totals


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
    with pytest.raises(ValueError, match="k and temperature are positive, got k=0, 5, temperature="):
        KNN(k=(5, 0))
    with pytest.raises(ValueError, match="got k=none"):
        KNN(k=())
    with pytest.raises(ValueError, match="the temperature has no effect"):
        KNN(temperature=(0.1, 0.2), weighting="uniform")
    with pytest.raises(ValueError, match="choose_on is a number of train images, at least 1; got 0"):
        KNN(choose_on=0)
    with pytest.raises(ValueError, match="needs at least two images; got 1"):
        KNN(k=(1, 2))(blobs(1), HeldOut(blobs(4)))


KS, TEMPERATURES = (1, 4, 9, 500), (0.02, 0.2)


def multi_hot(features):
    """Each image with its class, and also with the next one if its place is even; a class of its own for one image."""
    y = torch.nn.functional.one_hot(features.y, 6)
    y[::2] += torch.nn.functional.one_hot(features.y[::2] + 1, 6)
    return Features(features.x, y.to(torch.uint8))


@pytest.mark.parametrize("several_labels", [False, True])
def test_the_choice_is_the_best_pair_of_a_plain_leave_one_out(blobs, several_labels):
    train = blobs(60, noise=3)
    train = multi_hot(train) if several_labels else train
    quality = {}
    for k in KS:
        for temperature in TEMPERATURES:
            others = [torch.arange(60) != place for place in range(60)]
            settings = {"k": k, "temperature": temperature}
            if several_labels:
                rows = [knn_scores(train[kept], train.x[[i]], **settings) for i, kept in enumerate(others)]
                columns = zip(train.y.T, torch.cat(rows).T, strict=True)
                quality[k, temperature] = np.mean([average_precision_score(y, s) for y, s in columns if y.any()])
            else:
                found = [knn_predict(train[kept], train.x[[i]], **settings) for i, kept in enumerate(others)]
                quality[k, temperature] = (torch.cat(found) == train.y).double().mean().item()
    k, temperature, words = choose_knn(train, KS, TEMPERATURES)
    assert quality[k, temperature] == pytest.approx(max(quality.values()))
    assert len({round(one, 9) for one in quality.values()}) > 1
    assert f"chosen: k {k} of 1, 4, 9, 500 and temperature {temperature:g} of 0.02, 0.2" in words
    measure = "mean average precision" if several_labels else "right"
    assert f"({100 * quality[k, temperature]:.1f} % {measure}, leave-one-out on 60 train images)" in words


def test_of_equal_pairs_the_smaller_k_and_then_the_smaller_temperature_is_chosen(blobs):
    train = blobs(60, noise=0.01)  # all right with k of 2 and 3
    assert choose_knn(train, (3, 2), (0.5, 0.1, 0.3))[:2] == (2, 0.1)
    assert choose_knn(train, (50,), (0.5, 0.1), weighting="exponential", choose_on=1)[0] == 50


def test_images_that_choose_are_a_function_of_their_number_and_the_seed(blobs):
    train = blobs(200, noise=4)
    words = [choose_knn(train, (1, 30), (0.07,), choose_on=9, seed=seed)[2] for seed in (*range(12), 0)]
    assert all("leave-one-out on 9 train images" in one for one in words)
    assert words[0] == words[-1]
    assert len(set(words)) > 1


def test_the_evaluator_chooses_before_it_reads_test(blobs):
    train, test = blobs(60, noise=3), blobs(25, seed=5, noise=3)
    k, temperature, words = choose_knn(train, KS, TEMPERATURES)
    evaluator, asked = KNN(k=KS, temperature=TEMPERATURES), []
    evaluator.progress = type("Progress", (), {"count": lambda self, *told: asked.append(told)})()

    class Last(HeldOut):
        def read(self):
            assert asked
            assert all("choosing k and temperature" in told for told in asked)
            return super().read()

    [accuracy, _] = evaluator(train, Last(test))
    assert accuracy.value == knn(train, test, k=k, temperature=temperature).accuracy
    assert words in accuracy.detail
    other = KNN(k=KS, temperature=TEMPERATURES)(train, HeldOut(Features(-test.x, test.y)))[0]
    assert words in other.detail
    assert other.value != accuracy.value
    assert "k of 1, 4, 9, 500" in evaluator.describe()
    assert "k and temperature chosen by leave-one-out accuracy" in evaluator.describe()
    assert "of equals the smaller one" in evaluator.describe()


def test_one_value_is_used_as_it_is(blobs):
    train, test = blobs(60, noise=3), blobs(25, seed=5, noise=3)
    one, same = KNN(k=5), KNN(k=(5, 5), temperature=(0.07,))
    assert one.describe() == same.describe() == knn(train, test, k=5).protocol
    assert one(train, HeldOut(test)) == same(train, HeldOut(test))
    assert "chosen" not in one(train, HeldOut(test))[0].detail


def test_predictions_have_the_shares_of_the_votes(blobs):
    train, test = blobs(60, classes=7, noise=3), blobs(25, classes=7, seed=5, noise=3)
    predictions = KNN(k=9)(train, HeldOut(test))[0].predictions
    assert torch.equal(predictions.labels, test.y)
    assert torch.equal(predictions.ranked, knn_rank(train, test.x, k=9))
    assert predictions.classes.tolist() == list(range(7))
    one_hot = Features(train.x, torch.nn.functional.one_hot(train.y).to(torch.uint8))
    shares = knn_scores(one_hot, test.x, k=9)
    torch.testing.assert_close(predictions.logits, (shares + FLOOR).log())
    torch.testing.assert_close(predictions.logits.softmax(1), shares, atol=1e-5, rtol=0)
    distinct = Features(torch.eye(1001, 40) + 1, torch.arange(1001))
    assert knn(distinct, distinct[:2]).predictions.logits is None


def test_votes_of_the_first_neighbors_are_those_of_a_smaller_k():
    generator = torch.Generator().manual_seed(0)
    votes, neighbors = torch.rand(4, 8, generator=generator), torch.randint(9, (4, 8), generator=generator)
    labels = torch.randint(3, (9,), generator=generator)
    found = [totals.clone() for totals in vote_totals(votes, neighbors, labels, 3, (1, 5, 8, 20))]
    for k, totals in zip((1, 5, 8, 8), found, strict=True):
        expected = torch.stack([(votes * (labels[neighbors] == label))[:, :k].sum(1) for label in range(3)], dim=1)
        torch.testing.assert_close(totals, expected)


def test_of_equally_near_images_the_earlier_ones_vote():
    bank = Features(torch.ones(6, 3), torch.tensor([2, 1, 1, 0, 0, 0]))
    assert [knn_predict(bank, torch.ones(1, 3), k=k).item() for k in (1, 2, 3, 6)] == [2, 1, 1, 0]
