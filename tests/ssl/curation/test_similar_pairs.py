"""Pairs of similar features against the double loop."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from wildfern.ssl.curation.similar_pairs import finite_rows, similar_pairs, unit_rows
from wildfern.ssl.data import DataError


def random_features(n, dim=5, seed=0, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, dim))).to(dtype)


def by_loop(features, other, similarity):
    """(i, j, cosine) of all pairs, one at a time, in float64."""
    rows, columns = (x.double().numpy() for x in (features, features if other is None else other))
    found = []
    for i, one in enumerate(rows):
        for j, two in enumerate(columns):
            length = np.linalg.norm(one) * np.linalg.norm(two)
            if (other is not None or i < j) and length > 0 and one @ two / length >= similarity:
                found.append((i, j, one @ two / length))
    return found


def check(pairs, expected):
    assert [*zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)] == [(i, j) for i, j, _ in expected]
    np.testing.assert_allclose(pairs.value.numpy(), [value for *_, value in expected], atol=2e-6)
    assert (pairs.first.dtype, pairs.second.dtype, pairs.value.dtype) == (torch.int64, torch.int64, torch.float32)


@pytest.mark.parametrize("chunk", [1, 7, 30, 31, 4096])
@pytest.mark.parametrize("similarity", [0.2, 0.8, 0.999])
def test_pairs_match_the_double_loop(chunk, similarity):
    features = random_features(30)
    features[11] = features[3] * 40
    features[29] = features[3]
    features[5] = features[6] = 0
    expected = by_loop(features, None, similarity)
    assert {(3, 11), (3, 29), (11, 29)} <= {(i, j) for i, j, _ in expected}
    check(similar_pairs(features, similarity, chunk=chunk), expected)


@pytest.mark.parametrize("chunk", [1, 8, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_with_another_set_match_the_double_loop(chunk, dtype):
    features, other = random_features(20, dtype=dtype), random_features(25, seed=1)
    other[7] = features[19]
    other[2] = features[0] = 0
    expected = by_loop(features, other, 0.6)
    assert (19, 7) in {(i, j) for i, j, _ in expected}
    check(similar_pairs(features, 0.6, other=other, chunk=chunk), expected)
    check(similar_pairs(features, 0.6, other=other, chunk=chunk, exclude_self=False), expected)


def test_equal_rows_have_similarity_1_whatever_their_length_and_dimension():
    for dim in (3, 384, 2048):
        features = random_features(64, dim).repeat(2, 1) * torch.logspace(-20, 15, 128)[:, None]
        pairs = similar_pairs(features, 1.0, chunk=50)
        assert [*zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)] == [(i, i + 64) for i in range(64)]
        assert pairs.value.tolist() == [1.0] * 64


def test_a_row_is_paired_with_itself_only_if_asked_for():
    features = random_features(9)
    features[4] = 0
    pairs = similar_pairs(features, 0.99999, exclude_self=False)
    assert pairs.first.tolist() == pairs.second.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("other", [None, torch.zeros(0, 5), torch.zeros(3, 5)])
def test_there_may_be_no_pairs(other):
    for features in (torch.zeros(0, 5), torch.zeros(4, 5), torch.eye(5)):
        pairs = similar_pairs(features, 0.1, other=other)
        assert [len(part) for part in pairs] == [0, 0, 0]
        assert pairs.first.dtype == torch.int64


def test_too_many_pairs_are_refused_with_advice():
    features = torch.ones(20, 4)  # 190 pairs
    assert len(similar_pairs(features, 0.9, chunk=6, most=190).first) == 190
    with pytest.raises(
        DataError, match=r"more than 189 pairs have a cosine of at least 0\.9: raise the similarity, or leave"
    ):
        similar_pairs(features, 0.9, chunk=6, most=189)


@pytest.mark.parametrize("similarity", [0.0, -0.5, 1.01, float("nan")])
def test_similarity_must_be_a_positive_cosine(similarity):
    with pytest.raises(DataError, match="similarity must be above 0 and at most 1"):
        similar_pairs(torch.eye(3), similarity)


def test_unusable_features_are_refused():
    spoiled = torch.eye(70_000, 2)
    spoiled[65_540, 1] = torch.nan
    with pytest.raises(DataError, match="row 65540 of the features contains NaN or infinity"):
        similar_pairs(spoiled, 0.5)
    with pytest.raises(DataError, match=r"float\[N, D\], got torch.float32 \[3\]"):
        similar_pairs(torch.ones(3), 0.5)
    with pytest.raises(DataError, match=r"float\[N, D\], got torch.uint8 \[3, 3\]"):
        similar_pairs(torch.ones(3, 3, dtype=torch.uint8), 0.5)
    with pytest.raises(DataError, match="got 3 and 2 dimensions"):
        similar_pairs(torch.eye(3), 0.5, other=torch.eye(2))
    with pytest.raises(DataError, match="chunk must be 1 or more"):
        similar_pairs(torch.eye(3), 0.5, chunk=0)
    with pytest.raises(DataError, match='index must be "exact" or "faiss"'):
        similar_pairs(torch.eye(3), 0.5, index="hnsw")


def test_rows_of_any_length_become_unit_rows():
    features = torch.tensor([[3.0, 4.0], [3e-30, 4e-30], [3e30, -4e30], [0.0, 0.0]])
    expected = torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.6, -0.8], [0.0, 0.0]])
    torch.testing.assert_close(unit_rows(features), expected)
    assert unit_rows(features.half()[:1]).dtype == torch.float32
    assert unit_rows(features.double()).dtype == torch.float64
    assert not finite_rows(features.requires_grad_()).requires_grad


def test_without_faiss_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(DataError, match='index="faiss" needs the package faiss: pip install faiss-cpu'):
        similar_pairs(torch.eye(3), 0.5, index="faiss")


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs faiss")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_faiss_finds_nearly_all_pairs(dtype):
    """Copies with a little noise, of 5,000 random directions: an inverted file may miss one at the border of two lists."""
    features = random_features(5_000, 16, dtype=dtype)
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=features.shape))
    features = torch.cat([features, (features + 0.05 * noise).to(dtype)])
    for other in (None, features[::50]):
        exact = similar_pairs(features, 0.97, other=other)
        found = similar_pairs(features, 0.97, other=other, index="faiss", chunk=999)
        wanted = dict(zip(zip(exact.first.tolist(), exact.second.tolist(), strict=True), exact.value, strict=True))
        got = dict(zip(zip(found.first.tolist(), found.second.tolist(), strict=True), found.value, strict=True))
        assert set(got) <= set(wanted)
        assert len(got) > 0.98 * len(wanted) > (100 if other is not None else 4_000)
        assert list(got) == sorted(got)
        torch.testing.assert_close(torch.stack([*got.values()]), torch.stack([wanted[pair] for pair in got]))
    assert len(similar_pairs(torch.zeros(0, 3), 0.5, index="faiss").first) == 0
