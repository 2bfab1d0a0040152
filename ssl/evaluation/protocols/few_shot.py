"""Few-shot evaluation: linear probe and kNN on a few images of each class, over several draws."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import Evaluator, Features, HeldOut, Score, check_single_label, check_test
from wildfern.ssl.evaluation.metrics.classification_scores import classification_scores, joined
from wildfern.ssl.evaluation.metrics.label_counts import unseen_words
from wildfern.ssl.evaluation.protocols.knn import KNN, knn
from wildfern.ssl.evaluation.protocols.linear_classifier import LinearClassifier
from wildfern.ssl.evaluation.protocols.linear_probe import fit_linear_probe
from wildfern.ssl.evaluation.protocols.logistic_regression import ONE_THREAD_UP_TO, one_thread
from wildfern.ssl.evaluation.stratified import class_ranks
from wildfern.ssl.tracking.progress import SILENT, Progress

FewShotProtocol = Literal["linear", "knn"]
# So few images are linearly separable: weaker regularization than this only grows the weights.
STRENGTHS = (10.0, 1.0, 1e-1, 1e-2, 1e-3)
HOLDOUT = 0.2  # of a draw, each part in turn


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


def mean_over_draws(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean of a share over draws, and its 95 % interval in [0, 1]; None for one draw.

    mean ± t · s / √n with the sample standard deviation s of n draws and the quantile t of Student's distribution with n - 1
    degrees of freedom. It is of the mean over all possible draws with this test split.
    """
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, None, None
    reach = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / len(values) ** 0.5
    return mean, max(0.0, mean - reach), min(1.0, mean + reach)


def few_shot(
    train: Features,
    test: Features,
    *,
    shots: int = 5,
    seeds: int = 5,
    protocols: Sequence[FewShotProtocol] = ("linear", "knn"),
    k: int = 20,
    temperature: float = 0.07,
    progress: Progress = SILENT,
) -> dict[str, FewShotResult]:
    """Each protocol on `seeds` draws (seeds 0, 1, …) of `shots` images of each class.

    The linear probe chooses its strength by cross-validation within the draw. kNN uses min(k, shots) neighbors,
    the most of one class. Raises ValueError for fewer than one seed or shot, an unknown protocol and multi-hot labels.
    """
    check_single_label("few_shot", "LinearProbe", train.y, test.y)
    return _few_shot(train, lambda: test, shots, seeds, protocols, k, temperature, progress)[0]


def _few_shot(
    train: Features,
    read_test: Callable[[], Features],
    shots: int,
    seeds: int,
    protocols: Sequence[FewShotProtocol],
    k: int,
    temperature: float,
    progress: Progress,
) -> tuple[dict[str, FewShotResult], Features]:
    """The results and the test features, which are read after the probes of all draws are fitted."""
    _check(shots, seeds)
    check_single_label("few_shot", "LinearProbe", train.y)
    if unknown := sorted(set(protocols) - {"linear", "knn"}):
        raise ValueError(f"few-shot protocols are linear and knn, not {', '.join(unknown)}")
    draws = [draw_shots(train, shots, seed) for seed in range(seeds)]
    probes = []
    for seed, drawn in enumerate(draws if "linear" in protocols else ()):
        progress.count(seed, seeds, "draws")
        probes.append(fit_linear_probe(drawn, strengths=STRENGTHS, seed=seed).classifier)
    test = read_test()
    check_test(test)
    check_single_label("few_shot", "LinearProbe", test.y)
    smallest = int(torch.unique(train.y, return_counts=True)[1].min())
    short = f"; the smallest class has only {smallest} images" if smallest < shots else ""
    results = {}
    for protocol in protocols:
        if protocol == "linear":
            ranked = [_rank(probe, drawn, test) for probe, drawn in zip(probes, draws, strict=True)]
        else:
            ranked = [knn(drawn, test, k=min(k, shots), temperature=temperature).ranked for drawn in draws]
        values = [int((one[:, 0] == test.y).sum()) / len(test) for one in ranked]
        results[protocol] = FewShotResult(
            mean=statistics.fmean(values),
            std=statistics.stdev(values) if seeds > 1 else None,
            accuracies=tuple(values),
            protocol=_words(protocol, shots, seeds, k, temperature),
            detail=_draws_words(values) + short,
            ranked=tuple(ranked),
        )
    return results, test


def _rank(probe: LinearClassifier, drawn: Features, test: Features) -> Tensor:
    with one_thread(drawn.x.numel() <= ONE_THREAD_UP_TO):
        return probe.rank(test)


@register("evaluator", "few_shot")
class FewShot(Evaluator):
    """A linear probe or kNN on `shots` labeled images of each class; each score is the mean over `seeds` draws.

    Scores as of the classifier on all of train, with the interval of `mean_over_draws`; differences are paired over the draws,
    which are the same for each backbone, or over the test images where there is only one. Multi-hot labels are refused: "N images
    of each class" has no one meaning for them.
    """

    named = ("classifier", "shots")

    def __init__(
        self,
        *,
        classifier: FewShotProtocol = "linear",
        shots: int = 5,
        seeds: int = 5,
        k: int = 20,
        temperature: float = 0.07,
    ) -> None:
        _check(shots, seeds)
        KNN(k=k, temperature=temperature)  # refuses impossible ones
        self.classifier, self.shots, self.seeds = classifier, shots, seeds
        self.k, self.temperature = k, temperature

    def __call__(self, train: Features, test: HeldOut[Features]) -> list[Score]:
        settings = (self.shots, self.seeds, (self.classifier,), self.k, self.temperature, self.progress)
        results, held = _few_shot(train, test.read, *settings)
        result, classes = results[self.classifier], len(train.y.unique())
        draws = [classification_scores(ranked, held.y, classes) for ranked in result.ranked]
        unseen = unseen_words(train.y, held.y, train.class_names)
        all_alike = int(torch.unique(train.y, return_counts=True)[1].max()) <= self.shots
        return [self._over_draws(scores, result.detail, unseen, all_alike) for scores in zip(*draws, strict=True)]

    def describe(self) -> str:
        return _words(self.classifier, self.shots, self.seeds, self.k, self.temperature)

    def _over_draws(self, scores: Sequence[Score], detail: str, unseen: str, all_alike: bool) -> Score:
        values = [score.value for score in scores]
        mean, low, high = mean_over_draws(values)
        if all_alike:
            low = high = None
            unseen = joined(f"no class has more than {self.shots} train images: all draws are all of train", unseen)
        detail = joined(detail if scores[0].metric == "accuracy" else _draws_words(values), unseen)
        if low is not None:
            over = f"over draws (Student's t, {len(values)} draws), with this test split"
            detail += f"; 95 % intervals of the mean and of differences {over}"
        per_draw = [score.per_image for score in scores if score.per_image is not None]
        per_image = np.mean(per_draw, axis=0, dtype=np.float64).astype(np.float32)
        over_draws = None if low is None else tuple(values)
        return Score(scores[0].metric, mean, low, high, scores[0].n, detail, per_image=per_image, per_draw=over_draws)


def _check(shots: int, seeds: int) -> None:
    if shots < 1:
        raise ValueError(f"shots is at least 1 image of each class, got {shots}")
    if seeds < 1:
        raise ValueError(f"seeds is at least 1, got {seeds}")


def _draws_words(values: Sequence[float]) -> str:
    words = "draws: " + ", ".join(f"{100 * value:.1f}" for value in values) + " %"
    if len(values) > 1:
        words += f", standard deviation {100 * statistics.stdev(values):.1f} points"
    return words


def _words(protocol: str, shots: int, seeds: int, k: int, temperature: float) -> str:
    how = {
        "linear": "L2-regularized logistic regression, strength "
        + ("fixed" if shots == 1 else "chosen by cross-validation within the draw"),
        "knn": f"cosine nearest neighbors, k={min(k, shots)}, votes exp(similarity / {temperature:g})",
    }[protocol]
    over = "one draw" if seeds == 1 else f"mean over {seeds} draws with an interval over draws (Student's t)"
    return f"{shots} labeled images of each class, {over}: {how}"
