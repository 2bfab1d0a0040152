"""Weighted k nearest neighbors by cosine similarity (Wu et al., 2018, section 3.4)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wildfern.registry import register
from wildfern.ssl.evaluation.average_precision import multi_label_scores
from wildfern.ssl.evaluation.evaluator import Evaluator, Features, HeldOut, Score, check_single_label, check_test
from wildfern.ssl.evaluation.label_counts import unseen_words
from wildfern.ssl.evaluation.metrics import RANKED, classification_scores, joined
from wildfern.ssl.tracking.progress import SILENT, Progress

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
    progress: Progress = SILENT,
) -> Tensor:
    """Labels int64[M] of the queries float[M, D]: the class with the most votes among the k nearest images of the bank.

    A neighbor of similarity s votes with exp(s / temperature), or with 1 when `weighting` is "uniform"; the lowest
    label wins a tie. The search is exact, `chunk` queries at a time. A bank smaller than k votes as a whole.
    """
    return knn_rank(bank, queries, k=k, temperature=temperature, weighting=weighting, chunk=chunk, progress=progress)[
        :, 0
    ]


def knn_rank(
    bank: Features,
    queries: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    weighting: Weighting = "exponential",
    chunk: int = 512,
    progress: Progress = SILENT,
) -> Tensor:
    """The (at most) five classes with the most votes, int64[M, min(5, C)], best first.

    -1 stands for a class without any vote: it is not a prediction. Otherwise as `knn_predict`.
    """
    check_single_label("knn_rank", "KNN", bank.y)
    classes, targets = torch.unique(bank.y, return_inverse=True)
    ranked = []
    for votes, nearest in _votes(bank, queries, k, temperature, weighting, chunk, progress):
        chosen = F.one_hot(targets[nearest], len(classes)).to(votes)
        total, order = (votes[:, :, None] * chosen).sum(1).sort(dim=1, descending=True, stable=True)
        ranked.append(torch.where(total == 0, -1, classes[order])[:, :RANKED])
    return torch.cat(ranked)


def knn_scores(
    bank: Features,
    queries: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    weighting: Weighting = "exponential",
    chunk: int = 512,
    progress: Progress = SILENT,
) -> Tensor:
    """For multi-hot labels: each class's share of the votes of the k nearest images, float32[M, K] in [0, 1].

    Votes as in `knn_predict`.
    """
    if not bank.multi_label:
        raise ValueError("knn_scores() is for multi-hot labels [N, K]: use knn_rank")
    scores = []
    for votes, nearest in _votes(bank, queries, k, temperature, weighting, chunk, progress):
        labels = bank.y[nearest].to(votes)
        right, wrong = ((votes[:, :, None] * part).sum(1) for part in (labels, 1 - labels))
        scores.append(right / (right + wrong))  # exactly 0 or 1 where the neighbors agree
    return torch.cat(scores)


def _votes(
    bank: Features, queries: Tensor, k: int, temperature: float, weighting: Weighting, chunk: int, progress: Progress
) -> Iterator[tuple[Tensor, Tensor]]:
    """The votes of the nearest images and their places in the bank, both [chunk, min(k, N)]."""
    _check(k, temperature)
    if not len(bank):
        raise ValueError("the bank has no images")
    keys = F.normalize(bank.x.float(), dim=1).T
    for number, rows in enumerate(queries.float().split(chunk)):
        progress.count(number * chunk, len(queries), "test images")
        similarity, nearest = (F.normalize(rows, dim=1) @ keys).topk(min(k, len(bank)), dim=1)
        if weighting == "exponential":  # relative to the nearest one, so that no temperature overflows
            votes = ((similarity - similarity[:, :1]) / temperature).exp()
        else:
            votes = torch.ones_like(similarity)
        yield votes, nearest


def knn(
    train: Features,
    test: Features,
    *,
    k: int = 20,
    temperature: float = 0.07,
    weighting: Weighting = "exponential",
    progress: Progress = SILENT,
) -> KNNResult:
    """Accuracy on test with train as the bank; see `knn_predict`. Raises ValueError for an empty test."""
    check_single_label("knn", "KNN", train.y, test.y)
    check_test(test)
    ranked = knn_rank(train, test.x, k=k, temperature=temperature, weighting=weighting, progress=progress)
    return KNNResult(
        accuracy=int((ranked[:, 0] == test.y).sum()) / len(test),
        protocol=_words(k, temperature, weighting),
        detail=f"bank of {len(train)} images",
        ranked=ranked,
    )


@register("evaluator", "knn")
class KNN(Evaluator):
    """Weighted k nearest neighbors: accuracy, top-5 accuracy (more than five classes) and balanced accuracy.

    With multi-hot labels: mean and micro average precision of the classes' shares of the votes.
    """

    multi_label = True

    def __init__(self, *, k: int = 20, temperature: float = 0.07, weighting: Weighting = "exponential") -> None:
        _check(k, temperature)
        self.k, self.temperature, self.weighting = k, temperature, weighting

    def __call__(self, train: Features, test: HeldOut[Features]) -> list[Score]:
        held = test.read()
        unseen = unseen_words(train.y, held.y, train.class_names)
        settings = {
            "k": self.k,
            "temperature": self.temperature,
            "weighting": self.weighting,
            "progress": self.progress,
        }
        if train.multi_label:
            scores = knn_scores(train, held.x, **settings)
            return multi_label_scores(scores, held.y, joined(f"bank of {len(train)} images", unseen), self.progress)
        result = knn(train, held, **settings)
        return classification_scores(result.ranked, held.y, len(train.y.unique()), joined(result.detail, unseen))

    def describe(self) -> str:
        return _words(self.k, self.temperature, self.weighting)


def _check(k: int, temperature: float) -> None:
    if k < 1 or not temperature > 0:
        raise ValueError(f"k and temperature are positive, got k={k}, temperature={temperature}")


def _words(k: int, temperature: float, weighting: Weighting) -> str:
    votes = f"votes exp(similarity / {temperature:g})" if weighting == "exponential" else "one vote each"
    return f"cosine nearest neighbors, k={k}, {votes}, train as bank"
