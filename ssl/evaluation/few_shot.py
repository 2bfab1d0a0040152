"""Few labels: linear probe and kNN on a handful of images of each class, drawn several times."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from wildfern.generators.counter_rng import key
from wildfern.ssl.evaluation.features import Features
from wildfern.ssl.evaluation.knn import knn
from wildfern.ssl.evaluation.linear_probe import linear_probe
from wildfern.ssl.evaluation.stratified import class_ranks

FewShotProtocol = Literal["linear", "knn"]
# So few images can always be told apart: weaker regularization than this only grows the weights.
STRENGTHS = (10.0, 1.0, 1e-1, 1e-2, 1e-3)


@dataclass(frozen=True)
class FewShotResult:
    """Accuracy on the whole of test: mean and sample standard deviation over draws (None for one), and each draw's own."""

    mean: float
    std: float | None
    accuracies: tuple[float, ...]
    protocol: str
    detail: str


def draw_shots(train: Features, shots: int, seed: int) -> Features:
    """`shots` images of each class (all it has, where it has fewer): a pure function of labels, shots and seed."""
    if shots < 1:
        raise ValueError(f"shots is at least 1 image of each class, got {shots}")
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
) -> dict[str, FewShotResult]:
    """Each protocol on `seeds` draws (seeds 0, 1, …) of `shots` images of each class.

    The linear probe chooses its strength by cross-validation within the draw. kNN looks at min(k, shots) neighbors: no
    class has more to offer. Raises ValueError for fewer than one seed or shot, or an unknown protocol.
    """
    if seeds < 1:
        raise ValueError(f"seeds is at least 1, got {seeds}")
    if unknown := sorted(set(protocols) - {"linear", "knn"}):
        raise ValueError(f"few-shot protocols are linear and knn, not {', '.join(unknown)}")
    accuracies: dict[str, list[float]] = {protocol: [] for protocol in protocols}
    for seed in range(seeds):
        drawn = draw_shots(train, shots, seed)
        for protocol in protocols:
            if protocol == "linear":
                result = linear_probe(drawn, test, strengths=STRENGTHS, seed=seed)
            else:
                result = knn(drawn, test, k=min(k, shots), temperature=temperature)
            accuracies[protocol].append(result.accuracy)
    words = {
        "linear": "L2-regularized logistic regression, strength chosen by cross-validation within the draw",
        "knn": f"cosine nearest neighbors, k={min(k, shots)}, votes exp(similarity / {temperature:g})",
    }
    if shots == 1:
        words["linear"] = "L2-regularized logistic regression, strength set beforehand"
    smallest = int(torch.unique(train.y, return_counts=True)[1].min())
    short = f"; the smallest class has only {smallest} images" if smallest < shots else ""
    return {
        protocol: FewShotResult(
            mean=statistics.fmean(values),
            std=statistics.stdev(values) if seeds > 1 else None,
            accuracies=tuple(values),
            protocol=f"{shots} labeled images of each class, mean ± standard deviation of {seeds} draws: {words[protocol]}",
            detail="draws: " + ", ".join(f"{100 * value:.1f}" for value in values) + " %" + short,
        )
        for protocol, values in accuracies.items()
    }
