"""Linear probe: L2-regularized multinomial logistic regression on frozen features, its strength chosen on held-out train."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from wildfern.generators.counter_rng import key
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
from wildfern.ssl.evaluation.last_blocks import check_layers, layers_words
from wildfern.ssl.evaluation.metrics.average_precision import multi_label_scores
from wildfern.ssl.evaluation.metrics.calibration import fit_temperature
from wildfern.ssl.evaluation.metrics.classification_scores import joined, predicted_scores, ranked_classes
from wildfern.ssl.evaluation.metrics.label_counts import unseen_words
from wildfern.ssl.evaluation.protocols.linear_classifier import LinearClassifier
from wildfern.ssl.evaluation.protocols.logistic_regression import (
    ONE_THREAD_UP_TO,
    RegularizationPath,
    compared,
    fitted,
    one_thread,
)
from wildfern.ssl.evaluation.protocols.multi_label_probe import multi_label_probe
from wildfern.ssl.evaluation.stratified import class_ranks
from wildfern.ssl.tracking.progress import SILENT, Progress

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
# With fewer held-out images one split is too noisy: every part of train is held out in turn.
CROSS_VALIDATE_BELOW = 200
LEAST_HOLDOUT = 0.01  # each part of train may be held out in turn


@dataclass(frozen=True)
class LinearResult:
    """`accuracy` on test, the `strength` chosen and its `holdout_accuracy` (None: nothing could be held out).

    `protocol` says what was done on any data set, `detail` what was chosen on this one and how. `ranked` int64[N, min(5, C)]
    holds the likeliest labels of the test images, best first, and `logits` float32[N, C] the scores of `classifier`, whose
    temperature was chosen on the held-out images.
    """

    accuracy: float
    strength: float
    holdout_accuracy: float | None
    protocol: str
    detail: str
    ranked: Tensor = field(compare=False, repr=False)
    classifier: LinearClassifier = field(compare=False, repr=False)
    logits: Tensor = field(compare=False, repr=False)

    def predictions(self, labels: Tensor) -> Predictions:
        """What the classifier says of the test images with these labels."""
        found = self.classifier
        return Predictions(labels, self.ranked, self.logits, found.classes, found.temperature)


def linear_probe(
    train: Features,
    test: Features,
    *,
    strengths: Sequence[float] = STRENGTHS,
    holdout: float = 0.2,
    seed: int = 0,
    progress: Progress = SILENT,
) -> LinearResult:
    """Choose λ on a held-out, stratified part of train, fit all of train with it, and score test once.

    `holdout` is the share held out: one part in round(1 / holdout). When that part has fewer than 200 images, each
    part is held out in turn and the accuracies are pooled. Of equal accuracies the larger λ is chosen. A class with one image
    is never held out; if no class has two, the middle strength is used. Labels are any integers >= 0; a test label without train
    images counts as wrong. Raises ValueError when train has fewer than two classes or an image without a label, for an
    empty test and for multi-hot labels (`LinearProbe` takes these).
    """
    check_single_label("linear_probe", "LinearProbe", train.y, test.y)
    return _probe(train, lambda: test, strengths, holdout, seed, progress)[0]


@register("evaluator", "linear")
class LinearProbe(Evaluator):
    """Linear probe: accuracy, top-5 accuracy (more than five classes) and balanced accuracy.

    Strength and hold-out as in `linear_probe`; test is read after the strength is chosen and the weights are fitted.
    layers: features of the last blocks or stages (`LastBlocks`); None: the backbone's output.
    With multi-hot labels: one binary regression per class, mean and micro average precision (`multi_label_probe`).
    """

    multi_label = True

    def __init__(
        self,
        *,
        strengths: tuple[float, ...] = STRENGTHS,
        holdout: float = 0.2,
        seed: int = 0,
        layers: int | None = None,
    ) -> None:
        _check(strengths, holdout)
        check_layers(layers)
        self.strengths, self.holdout, self.seed, self.layers = strengths, holdout, seed, layers

    def __call__(self, train: Features, test: HeldOut[Features]) -> list[Score]:
        if train.multi_label:
            return self._multi_label(train, test)
        result, held = _probe(train, test.read, self.strengths, self.holdout, self.seed, self.progress)
        detail = joined(result.detail, unseen_words(train.y, held.y, train.class_names))
        return predicted_scores(result.predictions(held.y), len(result.classifier.classes), detail)

    def _multi_label(self, train: Features, test: HeldOut[Features]) -> list[Score]:
        check_finite(train)
        parts = _parts(self.holdout)
        settings = {"parts": parts, "cross_validate_below": CROSS_VALIDATE_BELOW, "seed": self.seed}
        settings["progress"] = self.progress
        found, held = multi_label_probe(train, test.read, self.strengths, **settings)
        detail = joined(found.detail, unseen_words(train.y, held.y, train.class_names))
        return multi_label_scores(found.scores, held.y, detail, self.progress)

    def describe(self) -> str:
        return _words(len(set(self.strengths)), _parts(self.holdout)) + layers_words(self.layers)


def _probe(
    train: Features,
    read_test: Callable[[], Features],
    strengths: Sequence[float],
    holdout: float,
    seed: int,
    progress: Progress,
) -> tuple[LinearResult, Features]:
    """The result and the test features, which are read after all choices."""
    fitted = fit_linear_probe(train, strengths=strengths, holdout=holdout, seed=seed, progress=progress)
    classifier = fitted.classifier
    with one_thread(train.x.numel() <= ONE_THREAD_UP_TO):
        test = read_test()
        check_test(test)
        logits = classifier.scores(test)
        ranked = ranked_classes(logits, classifier.classes)
        result = LinearResult(
            accuracy=int((ranked[:, 0] == test.y.to(ranked.device)).sum()) / len(test),
            strength=fitted.strength,
            holdout_accuracy=fitted.holdout_accuracy,
            protocol=_words(len(set(strengths)), _parts(holdout)),
            detail=fitted.detail,
            ranked=ranked,
            classifier=classifier,
            logits=logits.float(),
        )
    return result, test


@dataclass(frozen=True)
class FittedProbe:
    """A classifier fitted to all of train, its strength and how this was chosen."""

    classifier: LinearClassifier
    strength: float
    holdout_accuracy: float | None
    detail: str


def fit_linear_probe(
    train: Features,
    *,
    strengths: Sequence[float] = STRENGTHS,
    holdout: float = 0.2,
    seed: int = 0,
    progress: Progress = SILENT,
) -> FittedProbe:
    """The first half of `linear_probe`: choose λ on a held-out part of train, and fit all of train with it."""
    strengths = _checked(train, strengths, holdout)
    with one_thread(train.x.numel() <= ONE_THREAD_UP_TO):
        return _choose_and_fit(train, strengths, _parts(holdout), seed, progress)


def _choose_and_fit(train: Features, strengths: list[float], parts: int, seed: int, progress: Progress) -> FittedProbe:
    part = class_ranks(train.y, key("linear probe", seed)) % parts
    _, index, counts = torch.unique(train.y, return_inverse=True, return_counts=True)
    part[counts[index] == 1] = parts  # the only image of its class: always fitted
    held_out = int((part == 0).sum())
    start, temperature = None, None
    if held_out == 0:
        strength, holdout_accuracy = strengths[len(strengths) // 2], None
        how = "fixed: one image per class, none to hold out"
    else:
        in_turn = range(parts if held_out < CROSS_VALIDATE_BELOW else 1)
        right = torch.zeros(len(strengths), dtype=torch.float64)
        # Of each strength, the last classifier and the scores of the held-out images.
        found: list[tuple[LinearClassifier, list[Tensor]]] = []
        held_labels = []
        for turn in in_turn:
            rows, held = (part != turn).nonzero()[:, 0], train[part == turn]
            if not len(held):
                continue
            held_labels.append(held.y)
            fold = f"part {turn + 1} of {parts} held out, " if len(in_turn) > 1 else ""
            for number, classifier in enumerate(compared(RegularizationPath, train, rows, strengths, progress, fold)):
                logits = classifier.scores(held)
                right[number] += int((classifier.classes[logits.argmax(1)] == held.y).sum())
                earlier = found[number][1] if number < len(found) else []
                found[number : number + 1] = [(classifier, [*earlier, logits.float()])]
        labels = torch.cat(held_labels)
        best = int((right == right.max()).nonzero()[0])
        strength, holdout_accuracy = strengths[best], (right[best] / len(labels)).item()
        judge = f"{parts}-fold cross-validation" if len(in_turn) > 1 else f"{held_out} train images held out"
        how = f"{100 * holdout_accuracy:.1f} % right in {judge}"
        start, logits = found[best][0], torch.cat(found[best][1])
        temperature = fit_temperature(logits, torch.searchsorted(start.classes, labels))
    passed = strengths[: strengths.index(strength) + 1]
    classifier = fitted(RegularizationPath, train, passed, progress, start=start)
    classifier = replace(classifier, temperature=temperature)
    return FittedProbe(classifier, strength, holdout_accuracy, f"strength {strength:g} ({how})")


def _parts(holdout: float) -> int:
    return max(2, round(1 / holdout))


def _words(strengths: int, parts: int) -> str:
    return (
        f"L2-regularized logistic regression on frozen, standardized features, with the best of {strengths} strengths on "
        f"{1 / parts:.0%} of train held out ({parts}-fold cross-validation if these are below {CROSS_VALIDATE_BELOW} images), "
        "then fitted to all of train"
    )


def _check(strengths: Sequence[float], holdout: float) -> None:
    if not strengths or any(not (math.isfinite(strength) and strength > 0) for strength in strengths):
        raise ValueError(f"strengths are positive numbers, got {list(strengths)}")
    if not LEAST_HOLDOUT <= holdout <= 0.5:
        raise ValueError(f"holdout is a share of train in [{LEAST_HOLDOUT}, 0.5], got {holdout}")


def _checked(train: Features, strengths: Sequence[float], holdout: float) -> list[float]:
    _check(strengths, holdout)
    if (train.y < 0).any():
        raise ValueError(f"{int((train.y < 0).sum())} of {len(train)} train images have no label (-1)")
    check_finite(train)
    if len(torch.unique(train.y)) < 2:
        raise ValueError("a linear probe needs train images of at least two classes")
    return sorted(set(strengths), reverse=True)


def check_finite(train: Features) -> None:
    """Raises ValueError for features that are not finite."""
    if not torch.isfinite(train.x).all():
        raise ValueError("the train features contain NaN or infinity: the backbone has diverged")
