import math
import statistics

import pytest
import torch
from sklearn.metrics import average_precision_score

from wildfern.ssl.evaluation import Features, HeldOut, Retrieval, retrieve, wilson_interval


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
    assert list(scores) == ["mean_average_precision", "recall@1", "recall@3"]
    mean = scores["mean_average_precision"]
    assert mean.value == pytest.approx(statistics.fmean(expected))
    reach = 1.96 * statistics.stdev(expected) / math.sqrt(25)
    assert (mean.low, mean.high) == pytest.approx((mean.value - reach, mean.value + reach), abs=1e-4)
    nearest = sum(bool(train.y[row.argmax()] == label) for label, row in zip(test.y, similarity, strict=True))
    assert scores["recall@1"].value == nearest / 25
    assert (scores["recall@1"].low, scores["recall@1"].high) == wilson_interval(nearest, 25)


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
