"""Retrieval: rank a gallery by cosine similarity to a test image, and count how early its own class comes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import Evaluator, Features, HeldOut, Score, check_test
from wildfern.ssl.evaluation.metrics.classification_scores import joined, mean_score, proportion
from wildfern.ssl.evaluation.metrics.label_counts import LabelCounts, class_words, unseen_classes
from wildfern.ssl.evaluation.metrics.micro_average_precision import micro_average_precision
from wildfern.ssl.evaluation.protocols.neighbor_search import similarities
from wildfern.ssl.tracking.progress import SILENT, Progress


@dataclass(frozen=True)
class Retrieved:
    """For each query that has a relevant image in the gallery: average precision, and the rank of the first such image.

    `precision` float64[M], `first` int64[M] (1: the nearest image); `queries` int64[M] are the places of these queries.
    """

    precision: Tensor
    first: Tensor
    queries: Tensor


def retrieve(
    gallery: Features,
    queries: Features,
    *,
    leave_one_out: bool = False,
    chunk: int | None = None,
    progress: Progress = SILENT,
) -> Retrieved:
    """Rank the whole gallery for each query by cosine similarity; among equals the earlier image of the gallery comes first.

    Average precision is the mean of precision@r over the ranks r of the query's class (Manning et al., 2008, section 8.4).
    With multi-hot labels an image is relevant if it shares a class with the query. `leave_one_out`: gallery and queries are the
    same images, and none retrieves itself. Queries without a relevant image are left out. `chunk` queries at a time, by default
    as many as memory is meant for. Raises ValueError if there is nothing to rank, and for features that are not finite.
    """
    _check(gallery, queries, leave_one_out)
    precision, first, places = [], [], []
    start = 0
    for similarity, relevance in _pairs(gallery, queries, leave_one_out, progress, chunk):
        right = _by_rank(similarity, relevance)[:, : len(gallery) - leave_one_out]
        kept = right.any(1)
        places.append(kept.nonzero()[:, 0] + start)
        start += len(right)
        right = right[kept]
        found = right.cumsum(1)
        ranks = torch.arange(1, right.shape[1] + 1, device=right.device, dtype=torch.float64)
        precision.append((found * right / ranks).sum(1) / found[:, -1])
        first.append(right.long().argmax(1) + 1)
    return Retrieved(torch.cat(precision), torch.cat(first), torch.cat(places))


def retrieve_pairs(
    gallery: Features, queries: Features, *, leave_one_out: bool = False, progress: Progress = SILENT
) -> tuple[float, Tensor]:
    """`micro_average_precision` of all pairs of a query and a gallery image, and the influence of each query, float64[M].

    Relevance, `leave_one_out` and errors as of `retrieve`; also ValueError if no pair is relevant.
    """
    _check(gallery, queries, leave_one_out)
    return micro_average_precision(lambda: _pairs(gallery, queries, leave_one_out, progress))


def relevant(gallery: Tensor, queries: Tensor) -> Tensor:
    """Whether each image of the gallery has the query's class, or one of its classes: bool[M, N]."""
    if gallery.ndim == 1:
        return queries[:, None] == gallery
    return queries.float() @ gallery.T.float() > 0


def _check(gallery: Features, queries: Features, leave_one_out: bool) -> None:
    check_test(queries)
    if len(gallery) <= leave_one_out:
        need = "at least two images, of which each queries the others" if leave_one_out else "at least one image"
        raise ValueError(f"retrieval needs a gallery of {need}; got {len(gallery)}")


def _pairs(
    gallery: Features, queries: Features, leave_one_out: bool, progress: Progress, chunk: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Similarity float32[m, N] and relevance bool[m, N], m queries at a time; -inf for a query and itself."""
    own = torch.arange(len(queries), device=queries.x.device) if leave_one_out else None
    start = 0
    for similarity in similarities(gallery.x, queries.x, own=own, chunk=chunk):
        progress.count(start, len(queries), "test images")
        yield similarity, relevant(gallery.y, queries.y[start : start + len(similarity)])
        start += len(similarity)


def _by_rank(similarity: Tensor, relevance: Tensor) -> Tensor:
    """The relevance bool[m, N] of the images of each row, the most similar first, among equals the earlier one first.

    Similarity, place and relevance are the bits of one integer each, so that nothing else is sorted along.
    """
    bits = (0.0 - similarity).view(torch.int32)
    falling = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # integers in the order of the negated floats
    place = torch.arange(similarity.shape[1], device=similarity.device)
    keys = falling.long() * 2**32 + (2 * place + relevance)
    if keys.device.type == "cpu":
        keys.numpy().sort(axis=1)
    else:
        keys = keys.sort(dim=1).values
    return (keys & 1).bool()


@register("evaluator", "retrieval")
class Retrieval(Evaluator):
    """Image retrieval by cosine similarity: mean average precision, recall@k for each k, and micro average precision.

    recall@k is the share of queries with an image of their own class among the k nearest. `micro_average_precision` is of one
    ranking of all pairs of query and gallery image: it is high only if similarities are comparable between queries.
    gallery "train": test images query the train images; "test": each test image queries the other test images, and train is not
    used. With multi-hot labels, images that share a class count as of one class.
    """

    multi_label = True

    def __init__(self, *, k: tuple[int, ...] = (1, 5, 10), gallery: Literal["train", "test"] = "train") -> None:
        if any(one < 1 for one in k):
            raise ValueError(f"k holds ranks of at least 1, got {list(k)}")
        self.k, self.gallery = k, gallery

    def __call__(self, train: Features, test: HeldOut[Features]) -> list[Score]:
        held = test.read()
        alone = self.gallery == "test"
        if alone and len(held) < 2:
            raise ValueError(f"retrieval with gallery: test needs at least two test images, got {len(held)}")
        gallery = held if alone else train
        found = retrieve(gallery, held, leave_one_out=alone, progress=self.progress)
        n = len(found.queries)
        if n == 0:
            where = f"the {len(held) - 1} other test images" if alone else f"the {len(train)} train images"
            raise ValueError(f"no test image has an image of its class to retrieve among {where}")
        of_gallery = f"gallery of {len(gallery) - alone} images"
        left_out = len(held) - n
        without = f"{left_out} test image{'s' * (left_out > 1)} without any of its class in the gallery"
        unseen = {} if alone else unseen_classes(LabelCounts.of(train.y), LabelCounts.of(held.y))
        classes = f"classes without train images: {class_words(unseen, train.class_names)}" if unseen else ""
        detail = joined(of_gallery, f"{without} left out" if left_out else "", classes)
        scores = [mean_score("mean_average_precision", found.precision, detail)]
        for k in sorted(set(self.k)):
            right = found.first <= k
            score = proportion(f"recall@{k}", int(right.sum()), n, detail)
            scores.append(replace(score, per_image=right.cpu().numpy().astype(np.float32)))
        self.progress.detail("micro average precision")
        value, influence = retrieve_pairs(gallery, held, leave_one_out=alone, progress=self.progress)
        pairs = f"one ranking of the {len(held) * (len(gallery) - alone):,} pairs of test and gallery image"
        detail = joined(of_gallery, pairs, f"{without} counted" if left_out else "", classes)
        micro = mean_score(
            "micro_average_precision", value + len(held) * influence, joined(detail, "linearized in the test images")
        )
        if micro.low is not None and micro.high is not None:
            micro = replace(micro, low=max(0.0, micro.low), high=min(1.0, micro.high))
        return [*scores, replace(micro, value=value)]

    def describe(self) -> str:
        where = "the train images" if self.gallery == "train" else "the other test images"
        return (
            f"each test image ranks {where} by cosine similarity of their features; images of its class are relevant; "
            "micro average precision is of one ranking of all pairs, similarities rounded to 2^-20"
        )
