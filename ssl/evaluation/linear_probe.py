"""Linear probe: L2-regularized multinomial logistic regression on frozen features, solved to its minimum.

The objective of `strength` λ is  mean cross-entropy + λ/2 ‖W‖²  over features standardized by train statistics, with the
bias left free: scikit-learn's `LogisticRegression(C=1 / (λ n))`. It is strictly convex in W, so the result depends on
data and λ alone, not on a learning rate, a batch size or a number of epochs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import Evaluator, Features, HeldOut, Score
from wildfern.ssl.evaluation.metrics import classification_scores, ranked_classes
from wildfern.ssl.evaluation.stratified import class_ranks

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
# With fewer held-out images one split is too noisy: every part of train is held out in turn.
CROSS_VALIDATE_BELOW = 200
# The largest problem (elements of the feature matrix) that is solved in float64.
FLOAT64_UP_TO = 2**22
# The largest problem that one thread solves faster than several, which would mostly wait for each other.
ONE_THREAD_UP_TO = 2**20
MAX_ITERATIONS = 500


@contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class LinearResult:
    """`accuracy` on test, the `strength` chosen and its `holdout_accuracy` (None: nothing could be held out).

    `protocol` says what was done on any data set, `detail` what was chosen on this one and how. `ranked` int64[N, min(5, C)]
    holds the likeliest labels of the test images, best first.
    """

    accuracy: float
    strength: float
    holdout_accuracy: float | None
    protocol: str
    detail: str
    ranked: Tensor = field(compare=False, repr=False)


@dataclass(frozen=True)
class LinearClassifier:
    """Standardization and weights: scores are ((x - mean) / std) @ weight[D, C] + bias[C]."""

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor
    classes: Tensor

    def accuracy(self, features: Features) -> float:
        """Accuracy; a label without train images counts as wrong."""
        return int((self.classes[self.scores(features).argmax(1)] == features.y).sum()) / len(features)

    def rank(self, features: Features) -> Tensor:
        """The (at most) five most likely labels of each image, int64[N, min(5, C)], best first."""
        return ranked_classes(self.scores(features), self.classes)

    def scores(self, features: Features) -> Tensor:
        """Logits [N, C], in the order of `classes`."""
        rows = (features.x.to(self.weight.dtype) - self.mean) / self.std
        return torch.addmm(self.bias, rows, self.weight)


class RegularizationPath:
    """The minima for one training set at decreasing strengths, each initialized with the one before.

    Features are rotated onto their principal axes, which changes no minimum (λ‖W‖² is invariant) but makes the curvature
    nearly diagonal: about w s² + λ along an axis of variance s², with w the mean of p(1 - p). LBFGS runs on weights
    scaled by its square root, in which the problem is well-conditioned at any strength.
    """

    def __init__(self, train: Features) -> None:
        self.classes, self.target = torch.unique(train.y, return_inverse=True)
        double = train.x.numel() <= FLOAT64_UP_TO and train.x.device.type != "mps"
        self.dtype = torch.float64 if double else torch.float32
        self.loss_dtype = torch.float32 if train.x.device.type == "mps" else torch.float64
        rows = train.x.to(self.dtype)
        self.mean, std = rows.mean(0), rows.std(0, correction=0)
        self.std = torch.where(std > 1e-6 * self.mean.abs(), std, torch.ones_like(std))
        rows = (rows - self.mean) / self.std
        self.basis = None
        if len(rows) < rows.shape[1]:  # the minimum lies in the span of the rows (representer theorem)
            self.basis = torch.linalg.qr(rows.T).Q
            rows = rows @ self.basis
        variance, axes = torch.linalg.eigh((rows.T @ rows / len(rows)).cpu().double())
        self.variance = variance.clamp(min=0).to(rows)
        axes = axes.to(rows)
        self.basis = axes if self.basis is None else self.basis @ axes
        self.rows = rows @ axes
        self.weight = rows.new_zeros(rows.shape[1], len(self.classes))
        self.bias = rows.new_zeros(len(self.classes))

    def solve(self, strength: float) -> LinearClassifier:
        """The minimum at `strength`, initialized with the last solution.

        Stops when no entry of the scaled gradient exceeds 1e-6 (float64) or 1e-5 (float32), or after 500
        iterations.
        """
        with torch.no_grad():
            chance = torch.addmm(self.bias, self.rows, self.weight).softmax(1)
            curvature = (chance * (1 - chance)).mean().clamp(min=1e-6)
        scale, bias_scale = (curvature * self.variance + strength).rsqrt()[:, None], curvature.rsqrt()
        weight = (self.weight / scale).requires_grad_()
        bias = (self.bias / bias_scale).requires_grad_()
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=MAX_ITERATIONS,
            history_size=20,
            tolerance_grad=1e-6 if self.dtype == torch.float64 else 1e-5,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            solver.zero_grad()
            scores = torch.addmm(bias * bias_scale, self.rows, weight * scale)
            # Summed in float64: with float32 sums rounding stops the line search early.
            loss = F.cross_entropy(scores.to(self.loss_dtype), self.target)
            loss = loss + strength / 2 * (weight * scale).to(self.loss_dtype).square().sum()
            loss.backward()
            return loss

        solver.step(objective)
        self.weight, self.bias = (weight * scale).detach(), (bias * bias_scale).detach()
        return LinearClassifier(self.mean, self.std, self.basis @ self.weight, self.bias, self.classes)


def linear_probe(
    train: Features,
    test: Features,
    *,
    strengths: Sequence[float] = STRENGTHS,
    holdout: float = 0.2,
    seed: int = 0,
) -> LinearResult:
    """Choose λ on a held-out, stratified part of train, fit all of train with it, and score test once.

    `holdout` is the share held out: one part in round(1 / holdout). When that part has fewer than 200 images, each
    part is held out in turn and the accuracies are pooled. Of equal accuracies the larger λ is chosen. A class with one image
    is never held out; if no class has two, the middle strength is used. Labels are any integers >= 0.
    Raises ValueError when train has fewer than two classes or an image without a label.
    """
    return _probe(train, lambda: test, strengths, holdout, seed)[0]


@register("evaluator", "linear")
class LinearProbe(Evaluator):
    """Linear probe: accuracy, top-5 accuracy (more than five classes) and balanced accuracy.

    Strength and hold-out as in `linear_probe`; test is read after the strength is chosen and the weights are fitted.
    """

    def __init__(self, *, strengths: tuple[float, ...] = STRENGTHS, holdout: float = 0.2, seed: int = 0) -> None:
        _check(strengths, holdout)
        self.strengths, self.holdout, self.seed = strengths, holdout, seed

    def __call__(self, train: Features, test: HeldOut[Features]) -> list[Score]:
        result, held = _probe(train, test.read, self.strengths, self.holdout, self.seed)
        return classification_scores(result.ranked, held.y, len(train.y.unique()), result.detail)

    def describe(self) -> str:
        return _words(len(set(self.strengths)), _parts(self.holdout))


def _probe(
    train: Features, read_test: Callable[[], Features], strengths: Sequence[float], holdout: float, seed: int
) -> tuple[LinearResult, Features]:
    """The result and the test features, which are read after all choices."""
    strengths = _checked(train, strengths, holdout)
    with _one_thread(train.x.numel() <= ONE_THREAD_UP_TO):
        classifier, strength, holdout_accuracy, how = _choose_and_fit(train, strengths, _parts(holdout), seed)
        test = read_test()
        result = LinearResult(
            accuracy=classifier.accuracy(test),
            strength=strength,
            holdout_accuracy=holdout_accuracy,
            protocol=_words(len(strengths), _parts(holdout)),
            detail=f"strength {strength:g} ({how})",
            ranked=classifier.rank(test),
        )
    return result, test


def _choose_and_fit(
    train: Features, strengths: list[float], parts: int, seed: int
) -> tuple[LinearClassifier, float, float | None, str]:
    """Classifier, strength, its hold-out accuracy, and a description of how it was chosen."""
    part = class_ranks(train.y, key("linear probe", seed)) % parts
    _, index, counts = torch.unique(train.y, return_inverse=True, return_counts=True)
    part[counts[index] == 1] = parts  # the only image of its class: always fitted
    held_out = int((part == 0).sum())
    if held_out == 0:
        strength, holdout_accuracy = strengths[len(strengths) // 2], None
        how = "fixed: one image per class, none to hold out"
    else:
        in_turn = range(parts if held_out < CROSS_VALIDATE_BELOW else 1)
        right = torch.zeros(len(strengths), dtype=torch.float64)
        for turn in in_turn:
            fitted, held = train[part != turn], train[part == turn]
            if len(held):
                path = RegularizationPath(fitted)
                right += len(held) * torch.tensor(
                    [path.solve(strength).accuracy(held) for strength in strengths], dtype=torch.float64
                )
        seen = sum(int((part == turn).sum()) for turn in in_turn)
        best = int((right.round() == right.round().max()).nonzero()[0])  # round: a count, so equals are equal
        strength, holdout_accuracy = strengths[best], (right[best] / seen).item()
        judge = f"{parts}-fold cross-validation" if len(in_turn) > 1 else f"{held_out} train images held out"
        how = f"{100 * holdout_accuracy:.1f} % right in {judge}"
    path = RegularizationPath(train)
    for passed in strengths[: strengths.index(strength) + 1]:
        classifier = path.solve(passed)
    return classifier, strength, holdout_accuracy, how


def _parts(holdout: float) -> int:
    return max(2, round(1 / holdout))


def _words(strengths: int, parts: int) -> str:
    return (
        f"L2-regularized logistic regression on frozen, standardized features, strength chosen of {strengths} "
        f"on {1 / parts:.0%} of train held out ({parts}-fold cross-validation below {CROSS_VALIDATE_BELOW} images), "
        "then fitted to all of train"
    )


def _check(strengths: Sequence[float], holdout: float) -> None:
    if not strengths or any(not (math.isfinite(strength) and strength > 0) for strength in strengths):
        raise ValueError(f"strengths are positive numbers, got {list(strengths)}")
    if not 0 < holdout <= 0.5:
        raise ValueError(f"holdout is a share of train in (0, 0.5], got {holdout}")


def _checked(train: Features, strengths: Sequence[float], holdout: float) -> list[float]:
    _check(strengths, holdout)
    if (train.y < 0).any():
        raise ValueError(f"{int((train.y < 0).sum())} of {len(train)} train images have no label (-1)")
    if not torch.isfinite(train.x).all():
        raise ValueError("the train features contain NaN or infinity: the backbone has diverged")
    if len(torch.unique(train.y)) < 2:
        raise ValueError("a linear probe needs train images of at least two classes")
    return sorted(set(strengths), reverse=True)
