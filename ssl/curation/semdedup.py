"""SemDeDup: of similar images in a cluster, keep the one farthest from the centroid (Abbas et al., 2023)."""

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from wildfern.ssl.curation.similar_pairs import unit_rows
from wildfern.ssl.data.base import DataError


def semdedup(features: Tensor, clusters: ArrayLike | Tensor, epsilon: float, *, chunk: int = 4096) -> Tensor:
    """Which rows of features float[N, D] to keep, bool[N].

    - clusters: int64[N], as of k-means; -1: in no cluster, kept.
    - epsilon: in [0, 1]. A larger one drops more; 0 drops nothing. Below 1e-6 it is lost in rounding.

    The items of each cluster are sorted by their distance from its centroid, the farthest first: those are the hardest to learn.
    Item j is dropped if the maximum over all i before j of cos(i, j) is above 1 - epsilon; i may itself be dropped, so of a chain
    of similar items only the first stays. (The README of the published code says that a smaller epsilon drops more; its code does
    as here.)

    Rows count at unit length, and the centroid is that of unit rows. Equal distances: the lower number first. `chunk` × `chunk`
    cosines are in memory at a time. Raises DataError for features that are not finite, and for other clusters.
    """
    if not 0 <= epsilon <= 1:
        raise DataError(f"epsilon must be in 0 … 1 (1 - a cosine), got {epsilon:g}")
    rows = unit_rows(features)
    of_item = torch.as_tensor(clusters, device=rows.device)
    if of_item.shape != rows.shape[:1] or of_item.is_floating_point():
        raise DataError(f"clusters must be integers, one for each of {len(rows)} images, got {list(of_item.shape)}")
    keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    order = of_item.argsort(stable=True)
    numbers, sizes = of_item[order].unique_consecutive(return_counts=True)
    for number, items in zip(numbers.tolist(), order.split(sizes.tolist()), strict=True):
        if number >= 0 and len(items) > 1:
            members = rows[items]
            centroid = F.normalize(members.mean(0), dim=0)
            # Not a matrix product: equal rows must give equal numbers.
            hardest_first = (members * centroid).sum(1).argsort(stable=True)
            keep[items[hardest_first]] = _most_similar_before(members[hardest_first], chunk) <= 1 - epsilon
    return keep


def _most_similar_before(rows: Tensor, chunk: int) -> Tensor:
    """For each of these unit rows float[n, D] the highest cosine with a row before it, at most 1; -1 for the first row."""
    most = []
    for start in range(0, len(rows), chunk):
        block = rows[start : start + chunk]
        cosines = block @ block.T
        not_before = torch.ones_like(cosines, dtype=torch.bool).triu()
        highest = cosines.masked_fill(not_before, -1).amax(1)
        for left in range(0, start, chunk):
            highest = torch.maximum(highest, (block @ rows[left : left + chunk].T).amax(1))
        most.append(highest)
    return torch.cat(most).clamp(max=1)
