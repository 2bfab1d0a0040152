"""Pairs of images whose features have a high cosine: an exact search, block by block, or an approximate one by faiss."""

import importlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wildfern.ssl.data.base import DataError

MOST = 50_000_000  # pairs: 1 GB
ROUNDING = 1e-6  # of a cosine in float32
PROBES = 32  # lists of an index that faiss searches for a row

Block = tuple[Tensor, Tensor, Tensor]


class Pairs(NamedTuple):
    """first int64[P], second int64[P], value float32[P]: rows, and their cosine. On the CPU, sorted by (first, second)."""

    first: Tensor
    second: Tensor
    value: Tensor


def similar_pairs(
    features: Tensor,
    similarity: float,
    *,
    other: Tensor | None = None,
    chunk: int = 4096,
    device: str | torch.device | None = None,
    exclude_self: bool = True,
    index: Literal["exact", "faiss"] = "exact",
    most: int = MOST,
) -> Pairs:
    """All pairs i < j of rows of features float[N, D] with a cosine of at least `similarity`, in (0, 1].

    - other: float[M, D]; then pairs (i in features, j in other) instead, as between a training and a test set.
    - chunk: rows of a block; chunk × chunk cosines are in memory at a time.
    - device: where to compute, the features' own if None; both sets are moved there as a whole.
    - exclude_self: False: also the pairs (i, i), if there is no `other`.
    - index: "faiss" searches an inverted file on the CPU, which is faster from some millions of rows on, and finds nearly all
      pairs. Needs the package faiss.

    A row of zeros is in no pair. Cosines are computed in float32 (float64 for float64 features); a pair that misses `similarity`
    by less than 1e-6 counts, so that equal rows are found at 1. Raises DataError for more than `most` pairs, and for features
    that are not finite or do not fit each other.
    """
    if not 0 < similarity <= 1:
        raise DataError(f"similarity must be above 0 and at most 1, got {similarity:g}")
    if chunk < 1:
        raise DataError(f"chunk must be 1 or more rows, got {chunk}")
    if index not in ("exact", "faiss"):
        raise DataError(f'index must be "exact" or "faiss", got {index!r}')
    rows = unit_rows(features if device is None else features.to(device))
    others = None if other is None else unit_rows(other.to(rows.device)).to(rows.dtype)
    if others is not None and others.shape[1] != rows.shape[1]:
        raise DataError(f"both sets need features of one network, got {rows.shape[1]} and {others.shape[1]} dimensions")
    search = _exact_blocks if index == "exact" else _faiss_blocks
    kept, count = [], 0
    for first, second, value in search(rows, others, similarity - ROUNDING, chunk):
        if others is None:
            upper = first < second if exclude_self else first <= second
            first, second, value = first[upper], second[upper], value[upper]
        count += len(first)
        if count > most:
            raise DataError(
                f"more than {most:,} pairs have a cosine of at least {similarity:g}: raise the similarity, or leave out exact "
                f"duplicates first (n equal images are n²/2 pairs); most={most} is the limit"
            )
        if len(first):  # there may be a million blocks
            kept.append((first.cpu(), second.cpu(), value.clamp(similarity, 1).float().cpu()))
    return _sorted(kept)


def _exact_blocks(rows: Tensor, others: Tensor | None, threshold: float, chunk: int) -> Iterator[Block]:
    """Rows, columns and cosines of the entries above the threshold; without `others` blocks below the diagonal are left out."""
    columns = rows if others is None else others
    for top in range(0, len(rows), chunk):
        for left in range(top if others is None else 0, len(columns), chunk):
            cosines = rows[top : top + chunk] @ columns[left : left + chunk].T
            first, second = (cosines >= threshold).nonzero(as_tuple=True)
            yield first + top, second + left, cosines[first, second]


def _faiss_blocks(rows: Tensor, others: Tensor | None, threshold: float, chunk: int) -> Iterator[Block]:
    try:
        faiss = importlib.import_module("faiss")
    except ImportError as error:
        raise DataError('index="faiss" needs the package faiss: pip install faiss-cpu') from error
    queries = rows.float().numpy(force=True)
    keys = queries if others is None else others.float().numpy(force=True)
    if not len(queries) or not len(keys):
        return
    lists = max(1, min(int(4 * len(keys) ** 0.5), len(keys) // 39))  # faiss wants 39 rows a list to place the lists
    searched = faiss.index_factory(keys.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    searched.train(keys)
    searched.add(keys)
    searched.nprobe = min(PROBES, lists)
    for top in range(0, len(queries), chunk):
        limits, cosines, columns = searched.range_search(queries[top : top + chunk], threshold)
        counts = torch.from_numpy(limits.astype("int64")).diff()
        first = torch.arange(len(counts)).repeat_interleave(counts) + top
        yield first, torch.from_numpy(columns), torch.from_numpy(cosines)


def _sorted(blocks: list[Block]) -> Pairs:
    if not blocks:
        return Pairs(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    first, second, value = map(torch.cat, zip(*blocks, strict=True))
    order = second.argsort(stable=True)
    order = order[first[order].argsort(stable=True)]
    return Pairs(first[order], second[order], value[order])


def unit_rows(features: Tensor) -> Tensor:
    """The rows of float[N, D] at unit length; rows of zeros stay zero. Types and errors as of `finite_rows`."""
    rows = finite_rows(features)
    if not rows.numel():
        return rows
    largest = rows.abs().amax(1, keepdim=True)
    # Squares of very small or large numbers would be 0 or infinite.
    return F.normalize(rows / torch.where(largest > 0, largest, torch.ones_like(largest)), dim=1)


def finite_rows(features: Tensor) -> Tensor:
    """Features float[N, D] without gradients, in float32, or float64 if they are.

    Raises DataError for another shape or type, and for NaN or infinity.
    """
    if not isinstance(features, Tensor):
        raise DataError(f"features must be a torch.Tensor, got {type(features).__name__}; torch.from_numpy makes one")
    if features.ndim != 2 or not features.is_floating_point():
        raise DataError(f"features must be float[N, D], got {features.dtype} {list(features.shape)}")
    rows = features.detach()
    rows = rows if rows.dtype is torch.float64 else rows.float()
    for start in range(0, len(rows), 2**16):
        bad = ~torch.isfinite(rows[start : start + 2**16]).all(1)
        if bad.any():
            raise DataError(f"row {start + int(bad.long().argmax())} of the features contains NaN or infinity")
    return rows
