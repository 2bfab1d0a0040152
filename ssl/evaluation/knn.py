"""Weighted k nearest neighbors by cosine similarity (Wu et al., 2018, section 3.4)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import Evaluator, Features, HeldOut, Score
from wildfern.ssl.evaluation.metrics import RANKED, classification_scores

Weighting = Literal["exponential", "uniform"]


@dataclass(frozen=True)
class KNNResult:
    """`accuracy` on test, a description of the `protocol`, and the `detail` of this data set; `ranked` as `knn_rank` gives it."""

    accuracy: float
    protocol: str
    detail: str
    ranked: Tensor = field(compare=False, repr=False)


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
    return knn_rank(bank, queries, k=k, temperature=temperature, weighting=weighting, chunk=chunk)[:, 0]


def knn_rank(
    bank: Features,
    queries: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    weighting: Weighting = "exponential",
    chunk: int = 512,
) -> Tensor:
    """The (at most) five classes with the most votes, int64[M, min(5, C)], best first.

    -1 stands for a class without any vote: it is not a prediction. Otherwise as `knn_predict`.
    """
    _check(k, temperature)
    if not len(bank):
        raise ValueError("the bank has no images")
    classes, targets = torch.unique(bank.y, return_inverse=True)
    keys = F.normalize(bank.x.float(), dim=1).T
    ranked = []
    for rows in queries.float().split(chunk):
        similarity, nearest = (F.normalize(rows, dim=1) @ keys).topk(min(k, len(bank)), dim=1)
        if weighting == "exponential":  # relative to the nearest one, so that no temperature overflows
            votes = ((similarity - similarity[:, :1]) / temperature).exp()
        else:
            votes = torch.ones_like(similarity)
        chosen = F.one_hot(targets[nearest], len(classes)).to(votes)
        total, order = (votes[:, :, None] * chosen).sum(1).sort(dim=1, descending=True, stable=True)
        ranked.append(torch.where(total == 0, -1, classes[order])[:, :RANKED])
    return torch.cat(ranked)


def knn(
    train: Features,
    test: Features,
    *,
    k: int = 20,
    temperature: float = 0.07,
    weighting: Weighting = "exponential",
) -> KNNResult:
    """Accuracy on test with train as the bank; see `knn_predict`."""
    ranked = knn_rank(train, test.x, k=k, temperature=temperature, weighting=weighting)
    return KNNResult(
        accuracy=int((ranked[:, 0] == test.y).sum()) / len(test),
        protocol=_words(k, temperature, weighting),
        detail=f"bank of {len(train)} images",
        ranked=ranked,
    )


@register("evaluator", "knn")
class KNN(Evaluator):
    """Weighted k nearest neighbors: accuracy, top-5 accuracy (more than five classes) and balanced accuracy."""

    def __init__(self, *, k: int = 20, temperature: float = 0.07, weighting: Weighting = "exponential") -> None:
        _check(k, temperature)
        self.k, self.temperature, self.weighting = k, temperature, weighting

    def __call__(self, train: Features, test: HeldOut[Features]) -> list[Score]:
        held = test.read()
        result = knn(train, held, k=self.k, temperature=self.temperature, weighting=self.weighting)
        return classification_scores(result.ranked, held.y, len(train.y.unique()), result.detail)

    def describe(self) -> str:
        return _words(self.k, self.temperature, self.weighting)


def _check(k: int, temperature: float) -> None:
    if k < 1 or not temperature > 0:
        raise ValueError(f"k and temperature are positive, got k={k}, temperature={temperature}")


def _words(k: int, temperature: float, weighting: Weighting) -> str:
    votes = f"votes exp(similarity / {temperature:g})" if weighting == "exponential" else "one vote each"
    return f"cosine nearest neighbors, k={k}, {votes}, train as bank"
