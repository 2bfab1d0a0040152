import math

import pytest
import torch
from torch.nn import functional as F

from wildfern.ssl.losses import info_nce, queue_info_nce


def unit_rows(n, dim, seed):
    return F.normalize(torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("n", [1, 5])
def test_in_batch_form_matches_the_plain_loop(n):
    q, k = unit_rows(n, 4, 0), unit_rows(n, 4, 1)
    terms = []
    for i in range(n):
        scores = [(q[i] @ k[j] / 0.3).exp() for j in range(n)]
        terms.append(-(scores[i] / sum(scores)).log())
    torch.testing.assert_close(info_nce(q, k, 0.3), sum(terms) / n)


def test_queue_form_matches_the_plain_loop():
    q, k, queue = unit_rows(5, 4, 0), unit_rows(5, 4, 1), unit_rows(7, 4, 2)
    terms = []
    for i in range(5):
        positive = (q[i] @ k[i] / 0.3).exp()
        terms.append(-(positive / (positive + sum((q[i] @ u / 0.3).exp() for u in queue))).log())
    torch.testing.assert_close(queue_info_nce(q, k, queue, 0.3), sum(terms) / 5)


def test_equal_rows_give_the_logarithm_of_the_number_of_choices():
    same = unit_rows(1, 4, 0)
    assert info_nce(same.expand(6, 4), same.expand(6, 4), 0.1).item() == pytest.approx(math.log(6))
    assert queue_info_nce(same, same, same.expand(6, 4), 0.1).item() == pytest.approx(math.log(7))


def test_under_autocast_the_loss_is_in_full_precision():
    q, k, queue = (unit_rows(n, 64, n).float() for n in (5, 5, 9))
    expected = info_nce(q, k, 0.1), queue_info_nce(q, k, queue, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(q, k, 0.1), queue_info_nce(q, k, queue, 0.1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_what_does_not_fit_is_refused():
    q = unit_rows(3, 4, 0)
    with pytest.raises(ValueError, match=r"expected queries and keys \[N, D\], got \[3, 4\] and \[2, 4\]"):
        info_nce(q, q[:2], 0.1)
    with pytest.raises(ValueError, match="temperature must be greater than 0, got 0"):
        info_nce(q, q, 0.0)
    with pytest.raises(ValueError, match=r"expected a queue \[L, 4\], got \[5, 3\]"):
        queue_info_nce(q, q, unit_rows(5, 3, 1), 0.1)
