import math
import statistics

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from wildfern.ssl.evaluation import Features, HeldOut, Retrieval, retrieve, wilson_interval
from wildfern.ssl.evaluation.metrics.bootstrap import mean_interval
from wildfern.ssl.evaluation.protocols.retrieval import _by_rank


def plain_loop(gallery, queries, leave_one_out):
    """Average precision and the first right rank of each query, by counting."""
    found = []
    for number, (query, label) in enumerate(zip(queries.x.double(), queries.y.tolist(), strict=True)):
        ranking = []
        for place, (row, other) in enumerate(zip(gallery.x.double(), gallery.y.tolist(), strict=True)):
            if not (leave_one_out and place == number):
                ranking.append((-float(row @ query / row.norm() / query.norm()), place, other == label))
        right = [hit for _, _, hit in sorted(ranking)]
        if any(right):
            at = [rank for rank, hit in enumerate(right, start=1) if hit]
            found.append((statistics.fmean(sum(right[:rank]) / rank for rank in at), at[0], number))
    return found


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_precision_and_ranks_match_the_plain_loop(blobs, leave_one_out):
    queries = blobs(23, seed=5, noise=3)
    gallery = queries if leave_one_out else blobs(60, noise=3)
    found = retrieve(gallery, queries, leave_one_out=leave_one_out, chunk=4)
    precision, first, places = zip(*plain_loop(gallery, queries, leave_one_out), strict=True)
    assert found.precision.tolist() == pytest.approx(precision)
    assert tuple(found.first.tolist()) == first
    assert tuple(found.queries.tolist()) == places


def test_the_mean_is_scikit_learns(blobs):
    train, test = blobs(60, noise=3), blobs(25, seed=5, noise=3)
    similarity = torch.nn.functional.cosine_similarity(test.x[:, None], train.x[None], dim=2)
    expected = [
        average_precision_score((train.y == label).numpy(), row.numpy())
        for label, row in zip(test.y, similarity, strict=True)
    ]
    scores = {score.metric: score for score in Retrieval(k=(3, 1))(train, HeldOut(test))}
    assert list(scores) == ["mean_average_precision", "recall@1", "recall@3", "micro_average_precision"]
    mean = scores["mean_average_precision"]
    assert mean.value == pytest.approx(statistics.fmean(expected))
    assert mean.per_image == pytest.approx(expected)
    assert (mean.low, mean.high) == mean_interval(mean.per_image)
    right = [bool(train.y[row.argmax()] == label) for label, row in zip(test.y, similarity, strict=True)]
    assert scores["recall@1"].value == sum(right) / 25
    assert scores["recall@1"].per_image.tolist() == right
    assert (scores["recall@1"].low, scores["recall@1"].high) == wilson_interval(sum(right), 25)


@pytest.mark.parametrize("alone", [False, True])
def test_micro_average_precision_is_scikit_learns_over_all_pairs(blobs, alone):
    train, test = blobs(60, noise=3), blobs(25, seed=5, noise=3)
    test.y[3] = 99  # its pairs count, all as wrong
    gallery = test if alone else train
    similarity = torch.nn.functional.cosine_similarity(test.x[:, None], gallery.x[None], dim=2)
    counted = ~torch.eye(25, dtype=torch.bool) if alone else torch.ones_like(similarity, dtype=torch.bool)
    relevance = test.y[:, None] == gallery.y
    expected = average_precision_score(relevance[counted].numpy(), similarity[counted].numpy())
    micro = Retrieval(gallery="test" if alone else "train")(train, HeldOut(test))[-1]
    assert micro.value == pytest.approx(expected, abs=1e-5)  # similarities are rounded
    assert micro.n == len(micro.per_image) == 25
    assert micro.per_image.mean() == pytest.approx(micro.value)
    assert 0 <= micro.low < micro.value < micro.high <= 1
    assert f"one ranking of the {600 if alone else 1500:,} pairs" in micro.detail
    assert "1 test image without any of its class in the gallery counted" in micro.detail
    assert "left out" not in micro.detail


def test_the_relevance_by_rank_is_that_of_a_stable_sort():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randint(-3, 4, (40, 30), generator=generator) / 3  # many are equal
    similarity[0] = torch.randn(30, generator=generator)
    similarity[1, :2], similarity[1, 2:] = torch.tensor([0.0, -0.0]), -0.5
    similarity[2, 7] = -math.inf
    relevance = torch.rand(40, 30, generator=generator) < 0.5
    relevance[1, :2] = torch.tensor([False, True])
    order = similarity.sort(dim=1, descending=True, stable=True).indices
    assert torch.equal(_by_rank(similarity, relevance), relevance.gather(1, order))


def test_what_a_test_image_contributes_does_not_depend_on_the_backbone(blobs):
    """The same images in the same order, so that two backbones can be compared image by image."""
    train, test = blobs(60, noise=3), blobs(25, seed=5, noise=3)
    test.y[3] = 99
    other = Features(test.x.flip(1), test.y), Features(train.x.flip(1), train.y)
    for one, two in zip(Retrieval()(train, HeldOut(test)), Retrieval()(other[1], HeldOut(other[0])), strict=True):
        assert len(one.per_image) == len(two.per_image) == one.n == (25 if one.metric.startswith("micro") else 24)
        np.testing.assert_allclose(one.per_image, two.per_image, atol=1e-5)  # the same similarities


def test_leave_one_out_uses_test_alone_and_counts_what_it_leaves_out(blobs):
    train, test = blobs(60, noise=3), blobs(25, seed=5, noise=3)
    labels = test.y.clone()
    labels[3] = 99
    scores = Retrieval(gallery="test")(train, HeldOut(Features(test.x, labels)))
    assert scores[0].n == 24
    assert "gallery of 24 images; 1 test image without any of its class in the gallery left out" in scores[0].detail
    shuffled = Features(train.x.flip(0), train.y)
    assert scores == Retrieval(gallery="test")(shuffled, HeldOut(Features(test.x, labels)))


def test_impossible_settings_are_refused(blobs):
    with pytest.raises(ValueError, match="at least 1"):
        Retrieval(k=(0,))
    test = blobs(4)
    with pytest.raises(ValueError, match="no test image has an image of its class"):
        Retrieval()(blobs(8), HeldOut(Features(test.x, test.y + 100)))


def test_one_test_image_has_no_interval_and_no_gallery(blobs):
    one = blobs(1)
    score = Retrieval()(blobs(8), HeldOut(one))[0]
    assert (score.low, score.high, score.n) == (None, None, 1)
    assert score.detail == "gallery of 8 images; no interval from one test image"
    with pytest.raises(ValueError, match="gallery: test needs at least two test images, got 1"):
        Retrieval(gallery="test")(blobs(8), HeldOut(one))
    with pytest.raises(ValueError, match="a gallery of at least two images, of which each queries the others; got 1"):
        retrieve(one, one, leave_one_out=True)
    with pytest.raises(ValueError, match="a gallery of at least one image; got 0"):
        retrieve(one[:0], one)
