"""Typicality: how dense the features are around an image (Hacohen et al., 2022)."""

import torch
from torch import Tensor

from wildfern.ssl.curation.similar_pairs import finite_rows
from wildfern.ssl.data.base import DataError


def typicality(features: Tensor, k: int = 20, *, chunk: int = 1024) -> Tensor:
    """1 / (mean Euclidean distance to the k nearest other rows), float[N] > 0 for features float[N, D]; large is typical.

    Infinite where these k rows equal the row: leave out exact duplicates first. With k or fewer other rows, all of them count.
    Pass `unit_rows(features)` to compare directions only. The search is exact, with `chunk` × `chunk` distances in memory at a
    time. Raises DataError for fewer than two rows, and for features that are not finite.
    """
    rows = finite_rows(features)
    if k < 1 or len(rows) < 2:
        raise DataError(f"typicality needs k of 1 or more and at least two images, got k={k} and {len(rows)}")
    k = min(k, len(rows) - 1)
    centered = rows - rows.mean(0)  # changes no distance, and makes the rounding of the products below smaller
    squares = centered.square().sum(1)
    found = []
    for top in range(0, len(rows), chunk):
        block = centered[top : top + chunk]
        nearest = torch.empty(len(block), 0, dtype=rows.dtype, device=rows.device)
        places = torch.empty(len(block), 0, dtype=torch.int64, device=rows.device)
        for left in range(0, len(rows), chunk):
            columns = torch.arange(left, min(left + chunk, len(rows)), device=rows.device)
            squared = squares[columns] - 2 * block @ centered[columns].T  # less |x|², the same for all neighbors
            if left == top:
                squared.fill_diagonal_(torch.inf)
            nearest, chosen = torch.cat([nearest, squared], 1).topk(
                min(k, nearest.shape[1] + len(columns)), dim=1, largest=False
            )
            places = torch.cat([places, columns.expand(len(block), -1)], 1).gather(1, chosen)
        # Differences, as the products above lose small distances in rounding.
        found.append((rows[places] - rows[top : top + chunk, None]).norm(dim=2).mean(1))
    return torch.cat(found).reciprocal()
