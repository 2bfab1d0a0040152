"""Micro average precision (µAP): one ranking of all pairs of a query and a gallery image (Perronnin et al., 2009)."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

STEPS = 2**20  # similarities are rounded to multiples of 1 / STEPS, about the rounding error of float32
_BINS = 2 * STEPS + 2  # the first one for what is no pair

Pairs = Iterable[tuple[Tensor, Tensor]]


def micro_average_precision(pairs: Callable[[], Pairs]) -> tuple[float, Tensor]:
    """Average precision of the pairs of all queries in one ranking by similarity, and the influence of each query float64[M].

    `pairs` is called twice and gives blocks of similarity float[m, N] in [-1, 1] and relevance bool[m, N]; a similarity of -inf
    is no pair. Σ over similarities s, from the highest, of the precision among pairs of similarity ≥ s times the gain in recall.
    Equals are one step, also those that only rounding to 2⁻²⁰ makes equal. All relevant pairs count as to be found, and pairs of
    queries without a relevant image as wrong, as in the Image Similarity Challenge (Douze et al., 2021), which counts the best
    500,000 pairs only.

    The influence of a query is the derivative of the value by the query's weight (infinitesimal jackknife; Efron, 1982). The
    influences sum to 0, and the mean of value + M · influence varies over resamples of the queries as the value does, to first
    order.
    Raises ValueError if no pair is relevant.
    """
    counts = relevant_counts = torch.zeros(_BINS, dtype=torch.int64)
    for similarity, relevant in pairs():
        bins = _bins(similarity)
        counts = counts.to(bins.device) + torch.bincount(bins.flatten(), minlength=_BINS)
        relevant_counts = relevant_counts.to(bins.device) + torch.bincount(bins[relevant], minlength=_BINS)
    counts[0] = relevant_counts[0] = 0
    total = int(relevant_counts.sum())
    if not total:
        raise ValueError("no pair of a query and a gallery image is relevant, so there is no average precision")
    used = counts.nonzero()[:, 0].flip(0)
    # From the highest similarity down: n pairs and p relevant ones in each step, N and P in all steps up to it.
    n, p = counts[used], relevant_counts[used]
    N, P = n.cumsum(0).double(), p.cumsum(0).double()
    terms = p * P / N
    value = float(terms.sum() / total)
    # A pair adds to P (if relevant) and N of its own step and of all steps below.
    by_relevant, by_any = torch.zeros(2, _BINS, dtype=torch.float64, device=used.device)
    by_relevant[used] = (P / N + _from_here(p / N) - value) / total
    by_any[used] = _from_here(terms / N) / total
    influence = []
    for similarity, relevant in pairs():
        bins = _bins(similarity)
        influence.append((by_relevant[bins] * relevant - by_any[bins]).sum(1))
    return value, torch.cat(influence)


def _bins(similarity: Tensor) -> Tensor:
    steps = ((similarity.clamp(-1, 1) + 1) * STEPS).round().long() + 1
    return torch.where(similarity == -torch.inf, 0, steps)


def _from_here(terms: Tensor) -> Tensor:
    """The sum of each term and all after it."""
    return terms.flip(0).cumsum(0).flip(0)
