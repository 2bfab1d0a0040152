"""L2-regularized logistic regression on frozen features, solved to its minimum: over classes, or for each class alone.

The objective of `strength` λ is  mean cross-entropy + λ/2 ‖W‖²  over features standardized by train statistics, with the
bias left free: scikit-learn's `LogisticRegression(C=1 / (λ n))`. It is strictly convex in W, so the result depends on
data and λ alone, not on a learning rate, a batch size or a number of epochs.

An evaluation of the objective is one pass over the features, some images at a time: 4 n D C operations, and no matrix of n
rows besides the features. Up to `COPIED_UP_TO` these are a standardized copy; larger ones may be mapped from a file.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from wildfern.ssl.evaluation.evaluator import Features
from wildfern.ssl.evaluation.protocols.linear_classifier import LinearClassifier
from wildfern.ssl.evaluation.unit_rows import exact_scale
from wildfern.ssl.tracking.progress import Progress

# The largest problem (elements of the feature matrix) that is solved in float64.
FLOAT64_UP_TO = 2**22
# The same where strengths are only compared.
COMPARED_IN_FLOAT64_UP_TO = 2**18
# The largest problem that one thread solves faster than several, which would mostly wait for each other.
ONE_THREAD_UP_TO = 2**20
# Larger feature matrices are not copied to leave out the held-out images.
COPIED_UP_TO = 2**28
MAX_ITERATIONS = 500
# Tolerances of a weight that is kept, and of one that is only compared with those of other strengths, whose accuracy is within
# 0.1 points of the minimum's.
FINAL_FLOAT64, FINAL_FLOAT32, COMPARED = 1e-6, 1e-5, 3e-4
ELEMENTS = 2**20  # of the features of one step of a pass


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class RegularizationPath:
    """The minima for one training set at decreasing strengths, each initialized with the one before.

    Weights are those of the features' principal axes, which changes no minimum (λ‖W‖² is invariant) but makes the curvature
    nearly diagonal: about w s² + λ along an axis of variance s², with w the mean of p(1 - p). LBFGS runs on weights
    scaled by its square root, in which the problem is well-conditioned at any strength. `rows` int64[n] restricts it to
    these images; up to `float64_up_to` elements it is solved in float64. `passes` counts the passes over the features.
    """

    def __init__(self, train: Features, rows: Tensor | None = None, float64_up_to: int | None = None) -> None:
        if rows is not None and train.x.numel() <= COPIED_UP_TO:
            train, rows = train[rows], None
        device = train.computes_on
        self.train, self.rows, self.passes = train, rows, 0
        self.n, width = len(train) if rows is None else len(rows), train.x.shape[1]
        self.step = max(256, ELEMENTS // width)
        double = self.n * width <= (FLOAT64_UP_TO if float64_up_to is None else float64_up_to)
        self.dtype = torch.float64 if double and device.type != "mps" else torch.float32
        self.loss_dtype = torch.float32 if device.type == "mps" else torch.float64
        self.mean, self.std, self.varies = self._statistics(width, device)
        self.standardized: Tensor | None = None
        if rows is None and train.x.numel() <= COPIED_UP_TO:
            self.standardized = torch.cat([x for x, _ in self._parts()])
        span, moments = None, self._moments(None)
        if self.n < width:  # the minimum lies in the span of the rows (representer theorem)
            span = torch.linalg.qr(torch.cat([x for x, _ in self._parts()]).T).Q
            moments = self._moments(span)
        variance, axes = torch.linalg.eigh(moments.cpu().double())
        self.variance = variance.clamp(min=0).to(self.mean)
        axes = axes.to(self.mean)
        self.basis = axes if span is None else span @ axes  # of standardized features
        self.classes, self.target = self._targets((train.y if rows is None else train.y[rows]).to(device))
        self.weight = self.mean.new_zeros(self.basis.shape[1], len(self.classes))
        self.bias = self.mean.new_zeros(len(self.classes))

    def start_from(self, classifier: LinearClassifier) -> bool:
        """Initialize the next solution with that of nearly the same training set; False if its classes differ."""
        if not torch.equal(classifier.classes, self.classes):
            return False
        weight = classifier.weight.to(self.mean) * (self.std / classifier.std.to(self.mean))[:, None]
        self.weight, self.bias = self.basis.T @ weight, classifier.bias.to(self.mean)
        return True

    def solve(self, strength: float, tolerance: float | None = None) -> LinearClassifier:
        """The minimum at `strength`, initialized with the last solution.

        Stops when no entry of the scaled gradient exceeds `tolerance` (default: 1e-6 in float64, 1e-5 in float32), or after 500
        iterations.
        """
        if tolerance is None:
            tolerance = FINAL_FLOAT64 if self.dtype == torch.float64 else FINAL_FLOAT32
        curvature = self._curvature()
        scale, bias_scale = (curvature * self.variance[:, None] + strength).rsqrt(), curvature.rsqrt()
        weight, bias = self.weight / scale, self.bias / bias_scale
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=MAX_ITERATIONS,
            history_size=20,
            tolerance_grad=tolerance,
            tolerance_change=0.0 if self.dtype == torch.float64 else 1e-9,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            loss, weight.grad, bias.grad = self._objective(weight * scale, bias * bias_scale, strength)
            weight.grad *= scale
            bias.grad *= bias_scale
            return loss

        with torch.no_grad():
            solver.step(objective)
        self.weight, self.bias = weight * scale, bias * bias_scale
        # What was constant in train says nothing, however it differs in other images: rounding would give it a small weight.
        direct = (self.basis @ self.weight) * self.varies[:, None]
        return LinearClassifier(self.mean, self.std, direct, self.bias, self.classes)

    def _objective(self, weight: Tensor, bias: Tensor, strength: float) -> tuple[Tensor, Tensor, Tensor]:
        """The objective and its gradients, by one pass; `weight` and its gradient are those of the principal axes."""
        self.passes += 1
        direct = (self.basis @ weight).T.contiguous()  # [C, D]: products with it are twice as fast for few classes
        gradient, bias_gradient = torch.zeros_like(direct), torch.zeros_like(bias, dtype=self.loss_dtype)
        # Summed in float64: with float32 sums rounding stops the line search early.
        loss = torch.zeros((), dtype=self.loss_dtype, device=bias.device)
        for x, part in self._parts():
            scores = torch.nn.functional.linear(x, direct, bias)
            found, residual = self._loss(scores, self.target[part])
            loss += found
            gradient.addmm_(residual.T, x)
            bias_gradient += residual.sum(0, dtype=self.loss_dtype)
        loss = loss / self.n + strength / 2 * weight.to(self.loss_dtype).square().sum()
        return loss, (self.basis.T @ gradient.T) / self.n + strength * weight, (bias_gradient / self.n).to(bias)

    def _parts(self) -> Iterator[tuple[Tensor, slice]]:
        """Standardized features, `step` at a time, where they are computed with, and their places among the `n`."""
        for start in range(0, self.n, self.step):
            part = slice(start, min(start + self.step, self.n))
            if self.standardized is not None:
                yield self.standardized[part], part
            else:
                yield (self._plain(part) - self.mean) / self.std, part

    def _plain(self, part: slice) -> Tensor:
        x = self.train.x[part] if self.rows is None else self.train.x[self.rows[part].to(self.train.x.device)]
        return x.to(self.train.computes_on, self.dtype)

    def _statistics(self, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and standard deviation [D], and bool[D]: which features are not constant up to rounding.

        The deviation of constant ones is that of rounding, at least 1.
        """
        total = torch.zeros(width, dtype=self.loss_dtype, device=device)
        largest = torch.zeros(width, dtype=self.dtype, device=device)
        parts = [slice(start, min(start + self.step, self.n)) for start in range(0, self.n, self.step)]
        for part in parts:
            x = self._plain(part)
            total += x.sum(0, dtype=self.loss_dtype)
            largest = torch.maximum(largest, torch.linalg.vector_norm(x, torch.inf, dim=0))
        mean, scale = total / self.n, exact_scale(largest)  # the squares of the scaled features are float32 numbers
        squares = torch.zeros_like(total)
        for part in parts:
            x = self._plain(part)
            squares += ((x - mean.to(x)) * scale).square().sum(0, dtype=self.loss_dtype)
        std = (squares / self.n).sqrt() / scale
        if not std.isfinite().all():  # a difference of two features is infinite in float32
            raise ValueError("the backbone's features are too large for a linear probe: it has diverged")
        rounding = 1e-6 * mean.abs()
        varies = std > rounding
        std = torch.where(varies, std, rounding.clamp(min=1))
        return mean.to(self.dtype), std.to(self.dtype), varies

    def _moments(self, span: Tensor | None) -> Tensor:
        """Second moments of the standardized features, or of their coordinates in `span`."""
        width = len(self.mean) if span is None else span.shape[1]
        if span is None and self.n < width:
            return self.mean.new_zeros(0, 0)
        total = torch.zeros(width, width, dtype=self.loss_dtype, device=self.mean.device)
        for x, _ in self._parts():
            x = x if span is None else x @ span
            total += x.T @ x
        return total / self.n

    def _targets(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The classes int64[C], and what `_loss` compares the scores with."""
        return torch.unique(labels, return_inverse=True)

    def _curvature(self) -> Tensor:
        """Mean of p(1 - p) at the present weights, of the first images: a scalar, or one value for each class."""
        x, _ = next(self._parts())
        chance = self._chance(torch.addmm(self.bias, x, self.basis @ self.weight))
        return (chance * (1 - chance)).mean(self._averaged).clamp(min=1e-6)

    _averaged: tuple[int, ...] = (0, 1)

    def _chance(self, scores: Tensor) -> Tensor:
        return scores.softmax(1)

    def _loss(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses, and the gradient by the scores."""
        target = target[:, None]
        logarithms = scores.log_softmax(1)
        loss = -logarithms.gather(1, target).sum(dtype=self.loss_dtype)
        residual = logarithms.exp_()
        residual.scatter_add_(1, target, torch.full_like(target, -1, dtype=scores.dtype))
        return loss, residual


class OneVsRestPath(RegularizationPath):
    """Binary problems with one strength, "has this label" for each class of multi-hot labels, solved together.

    The objective is the sum of those of the classes, so each class reaches its own minimum: scikit-learn's
    `LogisticRegression(C=1 / (λ n))` on its column. `classes` holds the classes that some train images have and others lack.
    """

    _averaged = (0,)

    def __init__(self, train: Features, rows: Tensor | None = None, float64_up_to: int | None = None) -> None:
        super().__init__(train, rows, float64_up_to)
        share = self.target.mean(0, dtype=self.loss_dtype)
        self.bias = (share / (1 - share)).log().to(self.dtype)

    def _targets(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        counts = labels.sum(0, dtype=torch.int64)
        classes = ((counts > 0) & (counts < len(labels))).nonzero()[:, 0]
        return classes, labels[:, classes].to(self.dtype)

    def _chance(self, scores: Tensor) -> Tensor:
        return scores.sigmoid()

    def _loss(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, target, reduction="none")
        return loss.sum(dtype=self.loss_dtype), scores.sigmoid_().sub_(target)


def fitted(
    kind: type[RegularizationPath],
    train: Features,
    strengths: Sequence[float],
    progress: Progress,
    what: str = "all of train, ",
    start: LinearClassifier | None = None,
) -> LinearClassifier:
    """The classifier of the last strength, the minimum on all of train; initialized with `start`, or with the strengths before.

    `progress` is told how far it is, after `what`.
    """
    progress.detail(f"{what}principal axes")
    path = kind(train)
    if start is not None and path.start_from(start):
        strengths = strengths[-1:]
    for number, strength in enumerate(strengths, start=1):
        progress.detail(f"{what}strength {number} of {len(strengths)}")
        found = path.solve(strength, None if number == len(strengths) else COMPARED)
    return found


def compared(
    kind: type[RegularizationPath],
    train: Features,
    rows: Tensor,
    strengths: Sequence[float],
    progress: Progress,
    what: str,
) -> Iterator[LinearClassifier]:
    """The classifier of each strength in turn, fitted to the images `rows` as closely as their comparison needs."""
    progress.detail(f"{what}principal axes")
    path = kind(train, rows, COMPARED_IN_FLOAT64_UP_TO)
    for number, strength in enumerate(strengths, start=1):
        progress.detail(f"{what}strength {number} of {len(strengths)}")
        yield path.solve(strength, COMPARED)
