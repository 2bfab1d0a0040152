"""Weighted k nearest neighbors by cosine similarity (Wu et al., 2018, section 3.4)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import (
    Evaluator,
    Features,
    HeldOut,
    Predictions,
    Score,
    check_single_label,
    check_test,
)
from wildfern.ssl.evaluation.metrics.average_precision import mean_average_precision, multi_label_scores
from wildfern.ssl.evaluation.metrics.classification_scores import joined, predicted_scores
from wildfern.ssl.evaluation.metrics.label_counts import unseen_words
from wildfern.ssl.evaluation.protocols.neighbor_search import most_queries, nearest
from wildfern.ssl.evaluation.protocols.neighbor_votes import (
    Weighting,
    check_votes,
    label_shares,
    listed,
    ranked_by_votes,
    votable,
    vote_totals,
    votes_of,
)
from wildfern.ssl.tracking.progress import SILENT, Progress

MOST_LOGITS = 1000  # classes of which the shares of all test images are kept
# Added to each share, so that its logarithm is finite. Accuracy, calibration error and Brier score hardly depend on it.
FLOOR = 1e-6
CHOOSE_ON = "choose_on is a number of train images, at least 1; got {}"


@dataclass(frozen=True)
class KNNResult:
    """`accuracy` on test, a description of the `protocol`, and the `detail` of this data set.

    The logits of `predictions` are the logarithms of the shares of the votes, for up to 1,000 classes.
    """

    accuracy: float
    protocol: str
    detail: str
    predictions: Predictions = field(compare=False, repr=False)

    @property
    def ranked(self) -> Tensor:
        """As `knn_rank` gives it."""
        return self.predictions.ranked


def knn_predict(
    bank: Features,
    queries: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    weighting: Weighting = "exponential",
    chunk: int | None = None,
    progress: Progress = SILENT,
) -> Tensor:
    """Labels int64[M] of the queries float[M, D]: the class with the most votes among the k nearest images of the bank.

    A neighbor of similarity s votes with exp(s / temperature), or with 1 when `weighting` is "uniform"; the lowest
    label wins a tie. The search is exact; of equally near images the earlier ones are taken. `chunk` queries at a time, by
    default as many as memory is meant for. A bank smaller than k votes as a whole.
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
    chunk: int | None = None,
    progress: Progress = SILENT,
) -> Tensor:
    """The (at most) five classes with the most votes, int64[M, min(5, C)], best first.

    -1 stands for a class without any vote: it is not a prediction. Otherwise as `knn_predict`.
    """
    check_single_label("knn_rank", "KNN", bank.y)
    classes, ranked = bank.y.unique(), []
    for totals in _totals_of_chunks(bank, queries, k, temperature, weighting, chunk, progress):
        ranked.append(ranked_by_votes(totals, classes))
    return torch.cat(ranked)


def knn_scores(
    bank: Features,
    queries: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    weighting: Weighting = "exponential",
    chunk: int | None = None,
    progress: Progress = SILENT,
) -> Tensor:
    """For multi-hot labels: each class's share of the votes of the k nearest images, float32[M, K] in [0, 1].

    Votes as in `knn_predict`.
    """
    if not bank.multi_label:
        raise ValueError("knn_scores() is for multi-hot labels [N, K]: use knn_rank")
    return torch.cat(
        [
            label_shares(totals)
            for totals in _totals_of_chunks(bank, queries, k, temperature, weighting, chunk, progress)
        ]
    )


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
    classes, ranked, parts = train.y.unique(), [], []
    for totals in _totals_of_chunks(train, test.x, k, temperature, weighting, None, progress):
        ranked.append(ranked_by_votes(totals, classes))
        if len(classes) <= MOST_LOGITS:
            parts.append((totals / totals.sum(1, keepdim=True) + FLOOR).log())
    logits = torch.cat(parts) if parts else None
    predictions = Predictions(test.y, torch.cat(ranked), logits, None if logits is None else classes)
    return KNNResult(
        accuracy=int(predictions.right.sum()) / len(test),
        protocol=_words((k,), (temperature,), weighting),
        detail=f"bank of {len(train)} images",
        predictions=predictions,
    )


def choose_knn(
    train: Features,
    k: Sequence[int],
    temperature: Sequence[float],
    *,
    weighting: Weighting = "exponential",
    choose_on: int = 10_000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[int, float, str]:
    """The best pair of k and temperature by leave-one-out accuracy on train, and a description of the choice.

    `choose_on` train images, a function of their number and the seed, are each classified by all others. With multi-hot labels
    by mean average precision. Of equals the smaller k, then the smaller temperature is chosen. Raises ValueError for fewer than
    two images, and for multi-hot labels if none of these images has a class.
    """
    ks, temperatures = sorted(set(k)), sorted(set(temperature))
    check_votes(ks, temperatures, weighting)
    if choose_on < 1:
        raise ValueError(CHOOSE_ON.format(choose_on))
    if len(train) < 2:
        raise ValueError(f"to choose k and temperature, train needs at least two images; got {len(train)}")
    draws = uniform(fold(np.uint64(key("leave-one-out", seed)), np.arange(len(train))), 1)[:, 0]
    places = torch.from_numpy(np.sort(np.argsort(draws, kind="stable")[:choose_on])).to(train.y.device)
    labels, columns = votable(train.y)
    truth = train.y[places] if train.multi_label else labels[places]
    if train.multi_label and not truth.any():
        raise ValueError(f"none of the {len(places)} train images that choose k and temperature has a class")
    scores: dict[tuple[int, float], list[Tensor]] = {(one, t): [] for one in ks for t in temperatures}
    chunk, done = most_queries(len(train), columns), 0
    for similarity, found in nearest(train.x, train.x[places], ks[-1], own=places, chunk=chunk):
        progress.count(done, len(places), "train images", "choosing k and temperature")
        own = truth[done : done + len(found)]
        done += len(found)
        for t in temperatures:
            totals_of_k = vote_totals(votes_of(similarity, t, weighting), found, labels, columns, ks)
            for one, totals in zip(ks, totals_of_k, strict=True):
                scores[one, t].append(label_shares(totals) if train.multi_label else totals.argmax(1) == own)
    values = {}
    for pair, parts in scores.items():
        whole = torch.cat(parts)
        values[pair] = mean_average_precision(whole, truth) if train.multi_label else whole.double().mean().item()
    best = max(values, key=lambda pair: values[pair])  # the first of equals
    measure = "mean average precision" if train.multi_label else "right"
    chosen = [
        f"{name} {value:g} of {listed(given)}"
        for name, value, given in (("k", best[0], ks), ("temperature", best[1], temperatures))
        if len(given) > 1
    ]
    how = f"{100 * values[best]:.1f} % {measure}, leave-one-out on {len(places)} train images"
    return *best, f"chosen: {' and '.join(chosen)} ({how})"


def _totals_of_chunks(
    bank: Features,
    queries: Tensor,
    k: int,
    temperature: float,
    weighting: Weighting,
    chunk: int | None,
    progress: Progress,
) -> Iterator[Tensor]:
    """The votes of the k nearest for each class, float32[m, C], as of `vote_totals`."""
    check_votes((k,), (temperature,), weighting)
    labels, columns = votable(bank.y)
    chunk, done = chunk or most_queries(len(bank), columns), 0
    for similarity, found in nearest(bank.x, queries, k, chunk=chunk):
        progress.count(done, len(queries), "test images")
        done += len(found)
        yield from vote_totals(votes_of(similarity, temperature, weighting), found, labels, columns, (k,))


@register("evaluator", "knn")
class KNN(Evaluator):
    """Weighted k nearest neighbors: accuracy, top-5 accuracy (more than five classes) and balanced accuracy.

    Of several k or temperatures the best pair is chosen by `choose_knn` on train. With multi-hot labels: mean and micro average
    precision of the classes' shares of the votes.
    """

    multi_label = True

    def __init__(
        self,
        *,
        k: int | tuple[int, ...] = 20,
        temperature: float | tuple[float, ...] = 0.07,
        weighting: Weighting = "exponential",
        choose_on: int = 10_000,
        seed: int = 0,
    ) -> None:
        self.k = tuple(sorted(set(k))) if isinstance(k, Sequence) else (k,)
        self.temperature = tuple(sorted(set(temperature))) if isinstance(temperature, Sequence) else (temperature,)
        self.weighting, self.choose_on, self.seed = weighting, choose_on, seed
        check_votes(self.k, self.temperature, weighting)
        if choose_on < 1:
            raise ValueError(CHOOSE_ON.format(choose_on))

    def __call__(self, train: Features, test: HeldOut[Features]) -> list[Score]:
        k, temperature, chosen = self.k[0], self.temperature[0], ""
        if len(self.k) * len(self.temperature) > 1:
            k, temperature, chosen = choose_knn(
                train,
                self.k,
                self.temperature,
                weighting=self.weighting,
                choose_on=self.choose_on,
                seed=self.seed,
                progress=self.progress,
            )
        held = test.read()
        settings = {"k": k, "temperature": temperature, "weighting": self.weighting, "progress": self.progress}
        unseen = unseen_words(train.y, held.y, train.class_names)
        if train.multi_label:
            detail = joined(f"bank of {len(train)} images", chosen, unseen)
            return multi_label_scores(knn_scores(train, held.x, **settings), held.y, detail, self.progress)
        result = knn(train, held, **settings)
        return predicted_scores(result.predictions, len(train.y.unique()), joined(result.detail, chosen, unseen))

    def describe(self) -> str:
        return _words(self.k, self.temperature, self.weighting, self.choose_on)


def _words(k: Sequence[int], temperature: Sequence[float], weighting: Weighting, choose_on: int = 1) -> str:
    """`k=20` and its temperature, or all values and how the best are chosen."""
    one_k, one_temperature = len(k) == 1, len(temperature) == 1
    t = f"{temperature[0]:g}" if one_temperature else "temperature"
    votes = f"votes exp(similarity / {t})" if weighting == "exponential" else "one vote each"
    words = f"cosine nearest neighbors, {f'k={k[0]}' if one_k else f'k of {listed(k)}'}, {votes}"
    words += ", train as bank" if one_temperature else f", temperature of {listed(temperature)}, train as bank"
    if one_k and one_temperature:
        return words
    what = " and ".join(["k"] * (not one_k) + ["temperature"] * (not one_temperature))
    return (
        f"{words}; {what} chosen by leave-one-out accuracy (several labels: mean average precision) on at most "
        f"{choose_on:,} train images, of equals the smaller one"
    )
