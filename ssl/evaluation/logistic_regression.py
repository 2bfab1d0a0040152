"""L2-regularized logistic regression on frozen features, solved to its minimum: over classes, or for each class alone.

The objective of `strength` λ is  mean cross-entropy + λ/2 ‖W‖²  over features standardized by train statistics, with the
bias left free: scikit-learn's `LogisticRegression(C=1 / (λ n))`. It is strictly convex in W, so the result depends on
data and λ alone, not on a learning rate, a batch size or a number of epochs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wildfern.ssl.evaluation.evaluator import Features
from wildfern.ssl.evaluation.metrics import ranked_classes
from wildfern.ssl.tracking.progress import Progress

# The largest problem (elements of the feature matrix) that is solved in float64.
FLOAT64_UP_TO = 2**22
# The largest problem that one thread solves faster than several, which would mostly wait for each other.
ONE_THREAD_UP_TO = 2**20
MAX_ITERATIONS = 500


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
        self.classes, self.target = self._targets(train.y)
        self.weight = rows.new_zeros(rows.shape[1], len(self.classes))
        self.bias = rows.new_zeros(len(self.classes))

    def solve(self, strength: float) -> LinearClassifier:
        """The minimum at `strength`, initialized with the last solution.

        Stops when no entry of the scaled gradient exceeds 1e-6 (float64) or 1e-5 (float32), or after 500
        iterations.
        """
        with torch.no_grad():
            curvature = self._curvature(torch.addmm(self.bias, self.rows, self.weight))
        scale, bias_scale = (curvature * self.variance[:, None] + strength).rsqrt(), curvature.rsqrt()
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
            loss = self._loss(scores.to(self.loss_dtype))
            loss = loss + strength / 2 * (weight * scale).to(self.loss_dtype).square().sum()
            loss.backward()
            return loss

        solver.step(objective)
        self.weight, self.bias = (weight * scale).detach(), (bias * bias_scale).detach()
        return LinearClassifier(self.mean, self.std, self.basis @ self.weight, self.bias, self.classes)

    def _targets(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The classes int64[C], and what `_loss` compares the scores with."""
        return torch.unique(labels, return_inverse=True)

    def _curvature(self, scores: Tensor) -> Tensor:
        """Mean of p(1 - p): a scalar, or one value for each class."""
        chance = scores.softmax(1)
        return (chance * (1 - chance)).mean().clamp(min=1e-6)

    def _loss(self, scores: Tensor) -> Tensor:
        return F.cross_entropy(scores, self.target)


class OneVsRestPath(RegularizationPath):
    """Binary problems with one strength, "has this label" for each class of multi-hot labels, solved together.

    The objective is the sum of those of the classes, so each class reaches its own minimum: scikit-learn's
    `LogisticRegression(C=1 / (λ n))` on its column. `classes` holds the classes that some train images have and others lack.
    """

    def __init__(self, train: Features) -> None:
        super().__init__(train)
        share = self.target.mean(0)
        self.bias = (share / (1 - share)).log().to(self.dtype)

    def _targets(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        counts = labels.sum(0, dtype=torch.int64)
        classes = ((counts > 0) & (counts < len(labels))).nonzero()[:, 0]
        return classes, labels[:, classes].to(self.loss_dtype)

    def _curvature(self, scores: Tensor) -> Tensor:
        chance = scores.sigmoid()
        return (chance * (1 - chance)).mean(0).clamp(min=1e-6)

    def _loss(self, scores: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(scores, self.target, reduction="none").mean(0).sum()


def told_path(
    kind: type[RegularizationPath], train: Features, strengths: Sequence[float], progress: Progress, what: str
) -> Iterator[LinearClassifier]:
    """The classifier of each strength in turn; `progress` is told which one, after `what`."""
    progress.detail(f"{what}principal axes")
    path = kind(train)
    for number, strength in enumerate(strengths, start=1):
        progress.detail(f"{what}strength {number} of {len(strengths)}")
        yield path.solve(strength)
