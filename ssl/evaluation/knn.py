"""Weighted k nearest neighbors by cosine similarity (Wu et al., 2018, section 3.4): no training, no choice made on test."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wildfern.ssl.evaluation.features import Features

Weighting = Literal["exponential", "uniform"]


@dataclass(frozen=True)
class KNNResult:
    """`accuracy` on test, the `protocol` in words, and the `detail` of this data set."""

    accuracy: float
    protocol: str
    detail: str


def knn_predict(
    bank: Features,
    queries: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    weighting: Weighting = "exponential",
    chunk: int = 512,
) -> Tensor:
    """Labels int64[M] of the queries float[M, D]: the class with the most votes among the k nearest images of the bank.

    A neighbor of similarity s votes with exp(s / temperature), or with 1 when `weighting` is "uniform"; the lowest
    label wins a tie. The search is exact, `chunk` queries at a time. A bank smaller than k votes as a whole.
    """
    if k < 1 or temperature <= 0:
        raise ValueError(f"k and temperature are positive, got k={k}, temperature={temperature}")
    if not len(bank):
        raise ValueError("the bank holds no images")
    classes, targets = torch.unique(bank.y, return_inverse=True)
    keys = F.normalize(bank.x.float(), dim=1).T
    predictions = []
    for rows in queries.float().split(chunk):
        similarity, nearest = (F.normalize(rows, dim=1) @ keys).topk(min(k, len(bank)), dim=1)
        if weighting == "exponential":  # relative to the nearest one, so that no temperature overflows
            votes = ((similarity - similarity[:, :1]) / temperature).exp()
        else:
            votes = torch.ones_like(similarity)
        chosen = F.one_hot(targets[nearest], len(classes)).to(votes)
        predictions.append(classes[(votes[:, :, None] * chosen).sum(1).argmax(1)])
    return torch.cat(predictions)


def knn(
    train: Features,
    test: Features,
    *,
    k: int = 20,
    temperature: float = 0.07,
    weighting: Weighting = "exponential",
) -> KNNResult:
    """Share of test images that the bank of train images labels rightly; see `knn_predict`."""
    predictions = knn_predict(train, test.x, k=k, temperature=temperature, weighting=weighting)
    votes = f"votes exp(similarity / {temperature:g})" if weighting == "exponential" else "one vote each"
    return KNNResult(
        accuracy=int((predictions == test.y).sum()) / len(test),
        protocol=f"cosine nearest neighbors, k={k}, {votes}, train as bank",
        detail=f"bank of {len(train)} images",
    )
