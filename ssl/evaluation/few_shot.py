"""Few-shot evaluation: linear probe and kNN on a few images of each class, over several draws."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import Evaluator, Features, HeldOut, Score, check_single_label
from wildfern.ssl.evaluation.knn import KNN, knn
from wildfern.ssl.evaluation.label_counts import unseen_words
from wildfern.ssl.evaluation.linear_probe import linear_probe
from wildfern.ssl.evaluation.metrics import classification_scores, joined
from wildfern.ssl.evaluation.stratified import class_ranks
from wildfern.ssl.tracking.progress import SILENT, Progress

FewShotProtocol = Literal["linear", "knn"]
# So few images are linearly separable: weaker regularization than this only grows the weights.
STRENGTHS = (10.0, 1.0, 1e-1, 1e-2, 1e-3)


@dataclass(frozen=True)
class FewShotResult:
    """Accuracy on all of test: mean and sample standard deviation over draws (None for one), and that of each draw.

    `ranked` contains, for each draw, the most likely labels of the test images, int64[N, min(5, C)], best first.
    """

    mean: float
    std: float | None
    accuracies: tuple[float, ...]
    protocol: str
    detail: str
    ranked: tuple[Tensor, ...] = field(compare=False, repr=False)


def draw_shots(train: Features, shots: int, seed: int) -> Features:
    """`shots` images of each class (all, if it has fewer): a pure function of labels, shots and seed."""
    _check(shots, 1)
    check_single_label("draw_shots", "LinearProbe", train.y)
    return train[class_ranks(train.y, key("few shot", shots, seed)) < shots]


def few_shot(
    train: Features,
    test: Features,
    *,
    shots: int = 5,
    seeds: int = 3,
    protocols: Sequence[FewShotProtocol] = ("linear", "knn"),
    k: int = 20,
    temperature: float = 0.07,
    progress: Progress = SILENT,
) -> dict[str, FewShotResult]:
    """Each protocol on `seeds` draws (seeds 0, 1, …) of `shots` images of each class.

    The linear probe chooses its strength by cross-validation within the draw. kNN uses min(k, shots) neighbors,
    the most of one class. Raises ValueError for fewer than one seed or shot, an unknown protocol and multi-hot labels.
    """
    _check(shots, seeds)
    check_single_label("few_shot", "LinearProbe", train.y, test.y)
    if unknown := sorted(set(protocols) - {"linear", "knn"}):
        raise ValueError(f"few-shot protocols are linear and knn, not {', '.join(unknown)}")
    accuracies: dict[str, list[float]] = {protocol: [] for protocol in protocols}
    ranked: dict[str, list[Tensor]] = {protocol: [] for protocol in protocols}
    for seed in range(seeds):
        progress.count(seed, seeds, "draws")
        drawn = draw_shots(train, shots, seed)
        for protocol in protocols:
            if protocol == "linear":
                result = linear_probe(drawn, test, strengths=STRENGTHS, seed=seed)
            else:
                result = knn(drawn, test, k=min(k, shots), temperature=temperature)
            accuracies[protocol].append(result.accuracy)
            ranked[protocol].append(result.ranked)
    smallest = int(torch.unique(train.y, return_counts=True)[1].min())
    short = f"; the smallest class has only {smallest} images" if smallest < shots else ""
    return {
        protocol: FewShotResult(
            mean=statistics.fmean(values),
            std=statistics.stdev(values) if seeds > 1 else None,
            accuracies=tuple(values),
            protocol=_words(protocol, shots, seeds, k, temperature),
            detail="draws: " + ", ".join(f"{100 * value:.1f}" for value in values) + " %" + short,
            ranked=tuple(ranked[protocol]),
        )
        for protocol, values in accuracies.items()
    }


@register("evaluator", "few_shot")
class FewShot(Evaluator):
    """A linear probe or kNN on `shots` labeled images of each class; each score is the mean over `seeds` draws.

    Scores as of the classifier on all of train; low and high are one sample standard deviation of the draws away from the
    mean (None for one draw). Multi-hot labels are refused: "N images of each class" has no one meaning for them.
    """

    named = ("classifier", "shots")

    def __init__(
        self,
        *,
        classifier: FewShotProtocol = "linear",
        shots: int = 5,
        seeds: int = 3,
        k: int = 20,
        temperature: float = 0.07,
    ) -> None:
        _check(shots, seeds)
        KNN(k=k, temperature=temperature)  # refuses impossible ones
        self.classifier, self.shots, self.seeds = classifier, shots, seeds
        self.k, self.temperature = k, temperature

    def __call__(self, train: Features, test: HeldOut[Features]) -> list[Score]:
        held = test.read()
        options = {"shots": self.shots, "seeds": self.seeds, "k": self.k, "temperature": self.temperature}
        result = few_shot(train, held, protocols=(self.classifier,), **options, progress=self.progress)[self.classifier]
        classes = len(train.y.unique())
        draws = [classification_scores(ranked, held.y, classes) for ranked in result.ranked]
        unseen = unseen_words(train.y, held.y, train.class_names)
        return [self._over_draws(scores, result.detail, unseen) for scores in zip(*draws, strict=True)]

    def describe(self) -> str:
        return _words(self.classifier, self.shots, self.seeds, self.k, self.temperature)

    def _over_draws(self, scores: Sequence[Score], detail: str, unseen: str) -> Score:
        values = [score.value for score in scores]
        mean, metric = statistics.fmean(values), scores[0].metric
        if metric != "accuracy":
            detail = "draws: " + ", ".join(f"{100 * value:.1f}" for value in values) + " %"
        detail = joined(detail, unseen)
        if len(values) == 1:
            return Score(metric, mean, None, None, scores[0].n, detail)
        spread = statistics.stdev(values)
        detail += f"; mean ± standard deviation of {len(values)} draws"
        return Score(metric, mean, mean - spread, mean + spread, scores[0].n, detail)


def _check(shots: int, seeds: int) -> None:
    if shots < 1:
        raise ValueError(f"shots is at least 1 image of each class, got {shots}")
    if seeds < 1:
        raise ValueError(f"seeds is at least 1, got {seeds}")


def _words(protocol: str, shots: int, seeds: int, k: int, temperature: float) -> str:
    how = {
        "linear": "L2-regularized logistic regression, strength "
        + ("fixed" if shots == 1 else "chosen by cross-validation within the draw"),
        "knn": f"cosine nearest neighbors, k={min(k, shots)}, votes exp(similarity / {temperature:g})",
    }[protocol]
    return f"{shots} labeled images of each class, mean ± standard deviation of {seeds} draws: {how}"
