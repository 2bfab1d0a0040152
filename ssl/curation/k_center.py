"""Greedy k-center: images that cover all others as closely as possible (Gonzalez, 1985; Sener & Savarese, 2018, algorithm 1)."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wildfern.ssl.curation.similar_pairs import finite_rows
from wildfern.ssl.data.base import DataError

BLOCK = 2**24  # distances in memory at a time
NOT_AGAIN = -1.0  # in place of the distance of a row that may not be chosen


def k_center(
    features: Tensor,
    count: int,
    *,
    groups: ArrayLike | Tensor | None = None,
    quotas: Mapping[int, int] | ArrayLike | None = None,
    start: int | Sequence[int] | None = None,
    seed: int = 0,
) -> Tensor:
    """`count` rows of float[N, D] in order of choice, int64[count]: each is the one farthest from those chosen before it.

    - groups: int64[N], such as authors or clusters; -1: in none. quotas: the most of each group, {group: number} or an
      array by group. No limit for rows in no group, and for groups that the mapping does not have.
    - start: the first row, or rows, of the choice. None: one drawn with `seed`.

    Distances are Euclidean; pass `unit_rows(features)` for cosines. Among equals the lower number comes first. Without quotas the
    covering radius (see `covering_radius`) is at most twice the smallest possible. Every prefix is the choice for a smaller
    `count`. Raises DataError for features that are not finite, and where rows, quotas and start allow fewer.
    """
    rows = finite_rows(features)
    group, left = _limits(len(rows), groups, quotas)
    first = [] if start is None else [int(row) for row in np.atleast_1d(start)]
    _check(len(rows), count, group, left, first)
    distance = torch.full((len(rows),), torch.inf, dtype=rows.dtype, device=rows.device)
    group_of = torch.from_numpy(group).to(rows.device)
    for number, most in left.items():
        if most == 0:
            distance[group_of == number] = NOT_AGAIN
    chosen: list[int] = []
    while len(chosen) < count:
        if len(chosen) < len(first):
            row = first[len(chosen)]
        elif chosen:
            row = int(distance.argmax())
        else:
            allowed = (distance != NOT_AGAIN).nonzero()[:, 0]
            draw = torch.randint(len(allowed), (1,), generator=torch.Generator().manual_seed(seed))
            row = int(allowed[int(draw)])
        chosen.append(row)
        distance = torch.minimum(distance, _distances(rows, rows[row, None])[:, 0])
        distance[row] = NOT_AGAIN
        number = int(group[row])
        if number in left:
            left[number] -= 1
            if left[number] == 0:
                distance[group_of == number] = NOT_AGAIN
    return torch.tensor(chosen, dtype=torch.int64, device=rows.device)


def covering_radius(features: Tensor, chosen: ArrayLike | Tensor) -> float:
    """The largest distance from a row of float[N, D] to the nearest of the rows `chosen`, int64[count ≥ 1].

    Raises DataError without a row, and for features that are not finite.
    """
    rows = finite_rows(features)
    centers = rows[torch.as_tensor(chosen, device=rows.device)]
    if not len(centers) or not len(rows):
        raise DataError("a covering radius needs at least one chosen row")
    return max(float(_distances(block, centers).amin(1).max()) for block in rows.split(max(1, BLOCK // len(centers))))


def _distances(rows: Tensor, centers: Tensor) -> Tensor:
    """Euclidean, float[N, C], of differences: products would lose small distances in rounding."""
    return torch.cdist(rows, centers, compute_mode="donot_use_mm_for_euclid_dist")


def _limits(
    images: int, groups: ArrayLike | Tensor | None, quotas: Mapping[int, int] | ArrayLike | None
) -> tuple[np.ndarray, dict[int, int]]:
    """The group of each row, int64[N], and how many of each limited group may be chosen."""
    if (groups is None) != (quotas is None):
        raise DataError("groups and quotas need each other: give both or none")
    if groups is None or quotas is None:
        return np.full(images, -1), {}
    group = groups.numpy(force=True) if isinstance(groups, Tensor) else np.asarray(groups)
    if group.shape != (images,) or group.dtype.kind not in "iu":
        raise DataError(
            f"groups must be integers, one for each of {images} images, got {group.dtype} {list(group.shape)}"
        )
    given = quotas if isinstance(quotas, Mapping) else dict(enumerate(np.asarray(quotas).tolist()))
    if not isinstance(quotas, Mapping) and images and group.max() >= len(given):
        raise DataError(f"quotas has {len(given)} groups, and groups has a number {group.max()}")
    for number, most in given.items():
        if number < 0 or not isinstance(most, int | np.integer) or most < 0:
            raise DataError(f"quotas must be whole numbers of 0 or more, for groups of 0 or more, got {number}: {most}")
    return group.astype(np.int64), {int(number): int(most) for number, most in given.items()}


def _check(images: int, count: int, group: np.ndarray, left: Mapping[int, int], first: Sequence[int]) -> None:
    numbers, sizes = np.unique(group, return_counts=True)
    available = sum(
        min(size, left.get(number, size)) for number, size in zip(numbers.tolist(), sizes.tolist(), strict=True)
    )
    if not 1 <= count <= available:
        within = "" if available == images else f" within the quotas, of {images}"
        raise DataError(f"count must be in 1 … {available}, the number of images{within}, got {count}")
    if len(set(first)) != len(first) or len(first) > count or not all(0 <= row < images for row in first):
        raise DataError(f"start must be up to {count} different rows of 0 … {images - 1}, got {first}")
    for number, most in left.items():
        if sum(group[row] == number for row in first) > most:
            raise DataError(f"start has more rows of group {number} than its quota, {most}")
