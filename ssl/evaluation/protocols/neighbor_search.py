"""Exact search by cosine similarity, in blocks of bounded memory; among equal similarities the earlier image comes first."""

from collections.abc import Iterator

import torch
from torch import Tensor

from wildfern.ssl.evaluation.unit_rows import unit_rows

SIMILARITIES = 2**25  # of one block: 128 MiB in float32
BANK_BLOCK = 2**16  # images of the bank in one block
ROW_VALUES = 2**23  # similarities to the whole bank at a time, since sorting them takes several times their memory
LEAST_ROWS = 64  # of these: with fewer, reading a large bank takes longer than multiplying


def nearest(
    bank: Tensor,
    queries: Tensor,
    k: int,
    *,
    own: Tensor | None = None,
    chunk: int | None = None,
    bank_block: int = BANK_BLOCK,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The k images of the bank that are nearest to each query: similarities float32[m, k] and places int64[m, k], best first.

    `bank` float[N, D] and `queries` float[M, D] of any length of rows; m queries at a time, `chunk` or as many as memory is
    meant for. Fewer than k if the bank has fewer. `own` int64[M]: the place of each query in the bank, which it does not find.
    Equal are similarities that are equal in float32. One normalized copy of the bank is kept. Raises ValueError for k < 1,
    a bank without images (other than the query) and features that are not finite.
    """
    others = len(bank) - (own is not None)
    if k < 1:
        raise ValueError(f"k is positive, got k={k}")
    if others < 1:
        raise ValueError("the bank has no images" if own is None else "the bank has no other image than the query")
    keys = _finite_unit_rows(bank, "bank")
    rows = _finite_unit_rows(queries, "queries")
    return _nearest(keys, rows, min(k, others), own, chunk or most_queries(len(keys)), bank_block)


def most_queries(images: int, columns: int = 1) -> int:
    """How many queries at a time memory is meant for, with a bank of `images` and `columns` other values of each query."""
    return max(1, SIMILARITIES // max(min(images, BANK_BLOCK), columns, 1))


def similarities(
    bank: Tensor, queries: Tensor, *, own: Tensor | None = None, chunk: int | None = None
) -> Iterator[Tensor]:
    """The cosine similarities float32[m, N] of all queries to the whole bank, m queries at a time; -inf of a query to itself.

    Arguments and errors as of `nearest`.
    """
    if not len(bank):
        raise ValueError("the bank has no images")
    keys = _finite_unit_rows(bank, "bank")
    rows = _finite_unit_rows(queries, "queries")
    chunk = chunk or max(LEAST_ROWS, ROW_VALUES // len(keys))
    return (_block(keys, rows, start, start + chunk, own, 0, len(keys)) for start in range(0, len(rows), chunk))


def top(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of float[m, n] and their places, largest first; among equals the lowest place first.

    All n if there are fewer than k.
    """
    if k >= values.shape[1]:
        return values.sort(dim=1, descending=True, stable=True)
    found, places = values.topk(k + 1, dim=1)
    # Of equals topk returns any, in any order. One more than k shows the rows where it left out an equal of the last one.
    cut = (found[:, k - 1] == found[:, k]).nonzero()[:, 0]
    places = places[:, :k].sort(dim=1).values
    if len(cut):
        places[cut] = _lowest_places(values[cut], found[cut, k - 1 : k], k)
    found, order = values.gather(1, places).sort(dim=1, descending=True, stable=True)
    return found, places.gather(1, order)


def _lowest_places(values: Tensor, last: Tensor, k: int) -> Tensor:
    """The places, ascending, of all values above `last` and of the first ones equal to it: k of each row."""
    above, equal = values > last, values == last
    missing = k - above.sum(dim=1, keepdim=True)
    return (above | (equal & (equal.cumsum(dim=1) <= missing))).nonzero()[:, 1].view(-1, k)


def _nearest(
    keys: Tensor, rows: Tensor, k: int, own: Tensor | None, chunk: int, bank_block: int
) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(rows), chunk):
        best: tuple[Tensor, Tensor] | None = None
        for first in range(0, len(keys), bank_block):
            similarity = _block(keys, rows, start, start + chunk, own, first, first + bank_block)
            found, places = top(similarity, k)
            places = places + first
            if best is not None:  # of earlier blocks, so that they come first among equals
                found, places = torch.cat([best[0], found], dim=1), torch.cat([best[1], places], dim=1)
                found, order = top(found, k)
                places = places.gather(1, order)
            best = found[:, :k], places[:, :k]
        if best is not None:
            yield best


def _block(keys: Tensor, rows: Tensor, start: int, stop: int, own: Tensor | None, first: int, last: int) -> Tensor:
    similarity = rows[start:stop] @ keys[first:last].T
    if own is not None:
        place = own[start:stop] - first
        inside = ((place >= 0) & (place < similarity.shape[1])).nonzero()[:, 0]
        similarity[inside, place[inside]] = -torch.inf
    return similarity


def _finite_unit_rows(features: Tensor, what: str) -> Tensor:
    features = features.float()
    if not torch.isfinite(features).all():
        raise ValueError(f"the features of the {what} contain NaN or infinity: the backbone has diverged")
    return unit_rows(features)
