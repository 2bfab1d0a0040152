"""The votes of nearest neighbors for the classes of their labels (Wu et al., 2018, section 3.4)."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from wildfern.ssl.evaluation.metrics.classification_scores import RANKED
from wildfern.ssl.evaluation.protocols.neighbor_search import top

Weighting = Literal["exponential", "uniform"]


def votes_of(similarity: Tensor, temperature: float, weighting: Weighting) -> Tensor:
    """The vote of each neighbor, float[m, k] of similarities [m, k], best first: exp(s / temperature) over that of the best."""
    if weighting == "uniform":
        return torch.ones_like(similarity)
    return ((similarity - similarity[:, :1]) / temperature).exp()  # relative, so that no temperature overflows


def votable(y: Tensor) -> tuple[Tensor, int]:
    """Labels as `vote_totals` takes them, and its number of columns: class indices, or multi-hot labels beside their opposite."""
    if y.ndim == 1:
        classes, index = torch.unique(y, return_inverse=True)
        return index, len(classes)
    return torch.cat([y, 1 - y], dim=1), 2 * y.shape[1]


def vote_totals(votes: Tensor, neighbors: Tensor, labels: Tensor, columns: int, ks: Sequence[int]) -> Iterator[Tensor]:
    """The votes float[m, columns] of the first k of `neighbors` int64[m, n], for each of the rising `ks`; n of them if k > n.

    `neighbors` are places in `labels`. Neighbors are added one after the other, so that rounding is the same on each device. The
    tensor is changed when the next one is asked for.
    """
    totals = votes.new_zeros(len(votes), columns)
    rows, counted = torch.arange(len(votes), device=votes.device), 0
    for k in ks:
        for column in range(counted, min(k, votes.shape[1])):
            label, vote = labels[neighbors[:, column]], votes[:, column]
            if labels.ndim == 1:
                totals[rows, label] += vote
            else:
                totals += vote[:, None] * label
            counted += 1
        yield totals


def ranked_by_votes(totals: Tensor, classes: Tensor) -> Tensor:
    """The (at most) five of `classes` int64[C] with the most votes, int64[m, min(5, C)]; -1 for one without any."""
    most, order = top(totals, min(RANKED, len(classes)))
    return torch.where(most == 0, -1, classes[order])


def label_shares(totals: Tensor) -> Tensor:
    """Of the totals of multi-hot labels, float[m, 2K]: the share of the votes that each class has, float[m, K] in [0, 1]."""
    right, wrong = totals.chunk(2, dim=1)
    return right / (right + wrong)  # exactly 0 or 1 where the neighbors agree


def check_votes(k: Sequence[int], temperature: Sequence[float], weighting: Weighting) -> None:
    """Raises ValueError for settings that are impossible, or that do not differ."""
    if not k or not temperature or min(k) < 1 or not all(one > 0 for one in temperature):
        raise ValueError(f"k and temperature are positive, got k={listed(k)}, temperature={listed(temperature)}")
    if weighting == "uniform" and len(set(temperature)) > 1:
        raise ValueError("with weighting: uniform the temperature has no effect, so there is none to choose; give one")


def listed(values: Sequence[float]) -> str:
    """Numbers in words."""
    return ", ".join(f"{one:g}" for one in values) or "none"
