"""Retrieval: rank a gallery by cosine similarity to a test image, and count how early its own class comes."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import Evaluator, Features, HeldOut, Score, check_test
from wildfern.ssl.evaluation.label_counts import LabelCounts, class_words, unseen_classes
from wildfern.ssl.evaluation.metrics import Z, joined, proportion
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
    chunk: int = 256,
    progress: Progress = SILENT,
) -> Retrieved:
    """Rank the whole gallery for each query by cosine similarity; among equals the earlier image of the gallery comes first.

    Average precision is the mean of precision@r over the ranks r of the query's class (Manning et al., 2008, section 8.4).
    With multi-hot labels an image is relevant if it shares a class with the query. `leave_one_out`: gallery and queries are the
    same images, and none retrieves itself. Queries without a relevant image are left out. Raises ValueError if there is
    nothing to rank.
    """
    check_test(queries)
    if len(gallery) <= leave_one_out:
        need = "at least two images, of which each queries the others" if leave_one_out else "at least one image"
        raise ValueError(f"retrieval needs a gallery of {need}; got {len(gallery)}")
    keys = F.normalize(gallery.x.float(), dim=1)
    rows = F.normalize(queries.x.float(), dim=1)
    count = len(gallery) - leave_one_out
    ranks = torch.arange(1, count + 1, device=keys.device, dtype=torch.float64)
    precision, first, places = [], [], []
    for start in range(0, len(rows), chunk):
        progress.count(start, len(rows), "test images")
        similarity = rows[start : start + chunk] @ keys.T
        if leave_one_out:
            own = torch.arange(start, start + len(similarity), device=keys.device)
            similarity[torch.arange(len(similarity), device=keys.device), own] = -math.inf  # last, and cut off
        order = similarity.sort(dim=1, descending=True, stable=True).indices[:, :count]
        right = relevant(gallery.y, queries.y[start : start + chunk]).gather(1, order)
        kept = right.any(1)
        right = right[kept]
        found = right.cumsum(1)
        precision.append((found * right / ranks).sum(1) / found[:, -1])
        first.append(right.long().argmax(1) + 1)
        places.append(kept.nonzero()[:, 0] + start)
    return Retrieved(torch.cat(precision), torch.cat(first), torch.cat(places))


def relevant(gallery: Tensor, queries: Tensor) -> Tensor:
    """Whether each image of the gallery has the query's class, or one of its classes: bool[M, N]."""
    if gallery.ndim == 1:
        return queries[:, None] == gallery
    return queries.float() @ gallery.T.float() > 0


@register("evaluator", "retrieval")
class Retrieval(Evaluator):
    """Image retrieval by cosine similarity: mean average precision, and recall@k for each k.

    recall@k is the share of queries with an image of their own class among the k nearest. gallery "train": test images query
    the train images; "test": each test image queries the other test images, and train is not used. With multi-hot labels, images
    that share a class count as of one class.
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
        found = retrieve(held if alone else train, held, leave_one_out=alone, progress=self.progress)
        n = len(found.queries)
        if n == 0:
            where = f"the {len(held) - 1} other test images" if alone else f"the {len(train)} train images"
            raise ValueError(f"no test image has an image of its class to retrieve among {where}")
        left_out = len(held) - n
        detail = f"gallery of {len(held) - 1 if alone else len(train)} images"
        if left_out:
            detail += f"; {left_out} test image{'s' * (left_out > 1)} without any of its class in the gallery left out"
        unseen = {} if alone else unseen_classes(LabelCounts.of(train.y), LabelCounts.of(held.y))
        if unseen:
            detail += f"; classes without train images: {class_words(unseen, train.class_names)}"
        mean = found.precision.mean().item()
        low = high = None
        how = "no interval from one test image"
        if n > 1:
            how = f"95 % interval of the mean over {n} test images (normal approximation)"
            reach = Z * found.precision.std().item() / math.sqrt(n)
            low, high = max(0.0, mean - reach), min(1.0, mean + reach)
        scores = [Score("mean_average_precision", mean, low, high, n, joined(detail, how))]
        return scores + [
            proportion(f"recall@{k}", int((found.first <= k).sum()), n, detail) for k in sorted(set(self.k))
        ]

    def describe(self) -> str:
        where = "the train images" if self.gallery == "train" else "the other test images"
        return f"each test image ranks {where} by cosine similarity of their features; images of its class are relevant"
