"""Typicality against the plain loop."""

import numpy as np
import pytest
import torch

from wildfern.ssl.curation.similar_pairs import unit_rows
from wildfern.ssl.curation.typicality import typicality
from wildfern.ssl.data import DataError


def by_loop(features, k):
    x = features.double().numpy()
    found = []
    for i in range(len(x)):
        distances = sorted(float(np.linalg.norm(x[i] - x[j])) for j in range(len(x)) if j != i)[:k]
        found.append(1 / (sum(distances) / len(distances)) if any(distances) else np.inf)
    return found


@pytest.mark.parametrize("chunk", [1, 7, 41, 1024])
@pytest.mark.parametrize("k", [1, 3, 20, 40, 100])
def test_typicality_matches_the_plain_loop(chunk, k):
    features = torch.from_numpy(np.random.default_rng(1).normal(size=(41, 6)) + 10)
    np.testing.assert_allclose(typicality(features, k, chunk=chunk).numpy(), by_loop(features, k), rtol=1e-9)


def test_small_distances_far_from_the_origin_are_not_lost_in_rounding():
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 16)) * 1e-2 + 5).float()
    features[:30] += 1  # two far clusters, so that no shift brings both to the origin
    np.testing.assert_allclose(typicality(features, 5).numpy(), by_loop(features, 5), rtol=1e-4)


def test_rows_with_k_duplicates_are_infinitely_typical():
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32))
    features[:4] = features[0].clone()
    found = typicality(features, 3)
    assert found.isinf().tolist() == [True] * 4 + [False] * 8
    np.testing.assert_allclose(found.numpy(), by_loop(features, 3), rtol=1e-5)


def test_dense_regions_are_typical():
    rng = np.random.default_rng(0)
    dense, sparse = rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) * 10 + 100
    found = typicality(torch.from_numpy(np.concatenate([dense, sparse])), 10)
    assert found[:100].median() > 5 * found[100:].median()
    assert int(found[:100].argmin()) == int(np.linalg.norm(dense, axis=1).argmax())  # the outlier
    assert typicality(unit_rows(torch.eye(3) * torch.tensor([1.0, 2.0, 3.0])), 2).tolist() == pytest.approx(
        [0.5**0.5] * 3
    )


def test_other_input_is_refused():
    with pytest.raises(DataError, match="at least two images, got k=20 and 1"):
        typicality(torch.ones(1, 3))
    with pytest.raises(DataError, match="k of 1 or more"):
        typicality(torch.ones(4, 3), 0)
    with pytest.raises(DataError, match="NaN"):
        typicality(torch.full((3, 3), torch.nan))
