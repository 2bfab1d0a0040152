import math

import pytest
import torch

from wildfern.ssl.evaluation.protocols.neighbor_search import nearest, similarities, top


def quarters(n, seed):
    """Rows whose cosine similarities are exact multiples of a quarter, so that many are equal, whatever the block."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(n, 6)
    for row in rows:
        row[torch.randperm(6, generator=generator)[:4]] = torch.randint(0, 2, (4,), generator=generator) * 2.0 - 1
    return rows


def plain_loop(bank, queries, k, own):
    found = []
    for number, query in enumerate(queries.double()):
        order = [
            (-float(row @ query) / 4, place)
            for place, row in enumerate(bank.double())
            if own is None or place != own[number]
        ]
        found.append(sorted(order)[:k])
    return found


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(
    ("k", "chunk", "bank_block"), [(1, 3, 7), (5, 4, 4), (9, 100, 2), (9, None, 1000), (80, 5, 13)]
)
def test_the_nearest_are_those_of_a_sort_and_the_earlier_of_equals_come_first(alone, k, chunk, bank_block):
    bank = quarters(50, seed=0)
    own = torch.randperm(50, generator=torch.Generator().manual_seed(2))[:11] if alone else None
    queries = 3 * bank[own] if alone else quarters(11, seed=1)  # the length of rows does not matter
    blocks = list(nearest(bank, queries, k, own=own, chunk=chunk, bank_block=bank_block))
    similarity, places = (torch.cat(part) for part in zip(*blocks, strict=True))
    expected = plain_loop(bank, queries / 3 if alone else queries, k, own)
    assert places.tolist() == [[place for _, place in row] for row in expected]
    assert similarity.tolist() == [[-value for value, _ in row] for row in expected]


@pytest.mark.parametrize("values", [2, 5, 10_000])  # all equal but a few, some equal, none
@pytest.mark.parametrize("k", [1, 6, 30, 40])
def test_top_is_a_stable_sort(values, k):
    rows = torch.randint(values, (20, 30), generator=torch.Generator().manual_seed(values)).float()
    expected, order = rows.sort(dim=1, descending=True, stable=True)
    found, places = top(rows, k)
    assert torch.equal(found, expected[:, :k])
    assert torch.equal(places, order[:, :k])


def test_images_of_a_collapsed_backbone_are_all_equal_and_come_in_order():
    [(similarity, places)] = nearest(torch.ones(9, 4), torch.ones(3, 4), 5)
    assert places.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert similarity.tolist() == [[1.0] * 5] * 3
    [(similarity, _)] = nearest(torch.zeros(9, 4), torch.ones(3, 4), 2)
    assert similarity.tolist() == [[0.0] * 2] * 3


def test_whole_rows_of_similarities_leave_out_the_query():
    bank = quarters(10, seed=0)
    rows = torch.cat(list(similarities(bank, bank[4:7], own=torch.arange(4, 7), chunk=2)))
    expected = bank[4:7] @ bank.T / 4
    expected[torch.arange(3), torch.arange(4, 7)] = -math.inf
    assert torch.equal(rows, expected)


def test_what_cannot_be_searched_is_refused():
    bank = quarters(5, seed=0)
    with pytest.raises(ValueError, match="k is positive, got k=0"):
        nearest(bank, bank, 0)
    for search in (lambda rows: nearest(rows, bank, 1), lambda rows: similarities(rows, bank)):
        with pytest.raises(ValueError, match="the bank has no images"):
            search(bank[:0])
    with pytest.raises(ValueError, match="no other image than the query"):
        nearest(bank[:1], bank[:1], 1, own=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="features of the queries contain NaN or infinity"):
        nearest(bank, bank * math.nan, 1)
    with pytest.raises(ValueError, match="features of the bank contain NaN or infinity"):
        similarities(bank * math.inf, bank)


@pytest.mark.parametrize("scale", [1e-43, 1e-30, 1e-13, 1e19, 1e30, 8e37])
def test_rows_of_any_length_have_the_similarities_of_float64(scale):
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(40, 9, generator=generator) * scale, torch.randn(7, 9, generator=generator) * scale
    wide, asked = bank.double(), queries.double()
    expected = (asked / asked.norm(dim=1, keepdim=True)) @ (wide / wide.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(torch.cat(list(similarities(bank, queries))).double(), expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="features of the bank contain NaN or infinity"):
        nearest(wide * 1e300, queries, 1)
