"""Unit rows, compared with float64 and with torch's own for ordinary lengths."""

import math

import pytest
import torch
import torch.nn.functional as F

from wildfern.ssl.evaluation.unit_rows import unit_rows


def normal_rows(n=200, dim=37, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1e-13, 1e-9, 1.0, 1e9, 1e18, 1e20, 1e30, 8e37])
def test_rows_of_any_length_are_those_of_float64(scale):
    rows = normal_rows() * scale
    wide = rows.double()
    expected = wide / wide.norm(dim=1, keepdim=True)
    torch.testing.assert_close(unit_rows(rows).double(), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(unit_rows(rows[None]).double(), expected[None], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("length", [2.0**-149, 2.0**-140, 2.0**-126, 2.0**127, torch.finfo(torch.float32).max])
def test_the_least_and_the_largest_numbers_are_entries_like_others(length):
    rows = torch.zeros(2, 4)
    rows[0, 1], rows[1] = -length, length
    assert unit_rows(rows).tolist() == [[0.0, -1.0, 0.0, 0.0], [0.5] * 4]


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 7.0, 1e6, 1e15])
def test_ordinary_rows_keep_every_bit(scale):
    rows = normal_rows() * scale * torch.logspace(-2, 2, 200)[:, None]
    rows[:, 5] *= 1e-8
    given = rows.clone()
    assert torch.equal(unit_rows(rows), F.normalize(rows, dim=1))
    assert torch.equal(rows, given)
    columns = rows.T.reshape(37, 10, 20).permute(1, 2, 0)  # not contiguous, as patches of a map are
    assert torch.equal(unit_rows(columns), F.normalize(columns, dim=2))


def test_zeros_stay_zeros_and_what_is_not_finite_shows():
    assert unit_rows(torch.zeros(3, 4)).tolist() == [[0.0] * 4] * 3
    assert unit_rows(torch.ones(0, 4)).shape == (0, 4)
    rows = unit_rows(torch.tensor([[1.0, math.nan], [math.inf, 1.0], [3.0, 4.0]]))
    assert rows[:2].isnan().any(1).all()
    torch.testing.assert_close(rows[2], torch.tensor([0.6, 0.8]))


def test_half_precision_is_computed_in_float32():
    rows = normal_rows(dim=5).to(torch.bfloat16)
    assert torch.equal(unit_rows(rows), F.normalize(rows.float(), dim=1))


def test_float64_stays_float64():
    rows = normal_rows().double()
    expected = F.normalize(rows, dim=1)
    for scale in (2.0**-1040, 2.0**-500, 1.0, 2.0**1020):
        found = unit_rows(rows * scale)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
