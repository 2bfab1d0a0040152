"""Regression probe: ridge regression on frozen features that predicts numbers, its strength chosen on held-out train."""

import math

import torch
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import Evaluator, Features, HeldOut, Score
from wildfern.ssl.evaluation.last_blocks import check_layers, layers_words
from wildfern.ssl.evaluation.metrics.regression_scores import regression_scores
from wildfern.ssl.evaluation.protocols.linear_probe import CROSS_VALIDATE_BELOW, check_finite
from wildfern.ssl.evaluation.protocols.logistic_regression import ONE_THREAD_UP_TO, one_thread
from wildfern.ssl.evaluation.protocols.ridge_regression import RidgePath
from wildfern.ssl.evaluation.stratified import class_ranks

# From nearly the mean alone to nearly least squares: features are standardized, so their variances sum to their number.
STRENGTHS = (1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@register("evaluator", "regression")
class RegressionProbe(Evaluator):
    """Regression probe: R², mean absolute error, root mean squared error and Spearman's rank correlation.

    For numbers instead of classes: the target columns of a table, or the parameters that a generator rendered an image with. Each
    target has a ridge regression of its own, with the strength of the largest R² on held-out train images, the larger one of
    equals. holdout: the share held out, one part in round(1 / holdout); when that are fewer than 200 images, each part is held
    out in turn and their errors are pooled. A target that is the same for all train images is left out.
    layers: features of the last blocks or stages (`LastBlocks`); None: the backbone's output.
    """

    targets = True
    needs_labels = False

    def __init__(
        self,
        *,
        strengths: tuple[float, ...] = STRENGTHS,
        holdout: float = 0.2,
        seed: int = 0,
        layers: int | None = None,
    ) -> None:
        if not strengths or any(not (math.isfinite(strength) and strength > 0) for strength in strengths):
            raise ValueError(f"strengths are positive numbers, got {list(strengths)}")
        if not 0 < holdout <= 0.5:
            raise ValueError(f"holdout is a share of train in (0, 0.5], got {holdout}")
        check_layers(layers)
        self.strengths = tuple(sorted(set(strengths), reverse=True))
        self.holdout, self.seed, self.layers = holdout, seed, layers

    def __call__(self, train: Features, test: HeldOut[Features]) -> list[Score]:
        y, names = _targets(train), train.class_names
        check_finite(train)
        if test.class_names != names:
            raise ValueError(
                f"the targets of train are {', '.join(names or ())}, those of test {', '.join(test.class_names or ())}"
            )
        varied = (y != y[:1]).any(0).nonzero()[:, 0].tolist()
        if not varied:
            raise ValueError("all train images have the same numbers; there is nothing to predict")
        names = tuple(map(str, range(y.shape[1]))) if names is None else names
        left_out = [name for number, name in enumerate(names) if number not in varied]
        train = Features(train.x, y[:, varied], device=train.device)
        with one_thread(train.x.numel() <= ONE_THREAD_UP_TO):
            strengths, details = self._chosen(train)
            self.progress.detail("all of train")
            predictor = RidgePath(train).predictor(strengths)
            held = test.read()
            predictions = predictor(held.x).numpy()
        self.progress.detail("intervals")
        true = _targets(held)[:, varied].cpu().double().numpy()
        spread = train.y.cpu().double().std(0, correction=0).numpy()
        detail = f"the same for all train images, so left out: {', '.join(left_out)}" if left_out else ""
        return regression_scores(true, predictions, [names[number] for number in varied], spread, details, detail)

    def _chosen(self, train: Features) -> tuple[list[float], list[str]]:
        """The strength for each target, and words for how it was chosen."""
        parts = max(2, round(1 / self.holdout))
        part = class_ranks(torch.zeros(len(train), dtype=torch.int64), key("regression probe", self.seed)) % parts
        held_out = int((part == 0).sum())
        turns = parts if held_out < CROSS_VALIDATE_BELOW else 1
        errors = torch.zeros(len(self.strengths), train.y.shape[1], dtype=torch.float64)
        true = []
        for turn in range(turns):
            self.progress.detail(f"part {turn + 1} of {parts} held out")
            rows, held = (part != turn).nonzero()[:, 0], (part == turn).nonzero()[:, 0]
            if not len(held) or not len(rows):
                continue
            held_x, held_y = train.x[held.to(train.x.device)], train.y[held.to(train.y.device)].cpu().double()
            path = RidgePath(train, rows.to(train.y.device))
            for number, strength in enumerate(self.strengths):
                predicted = path.predictor([strength] * held_y.shape[1])(held_x)
                errors[number] += (predicted - held_y).square().sum(0)
            true.append(held_y)
        pooled = torch.cat(true)
        best = errors.argmin(0)
        r2 = 1 - errors.min(0).values / (pooled - pooled.mean(0)).square().sum(0)
        judge = f"{parts}-fold cross-validation" if turns > 1 else f"{held_out} train images held out"
        strengths = [self.strengths[number] for number in best]
        chosen = zip(strengths, r2.tolist(), strict=True)
        return strengths, [f"strength {strength:g} (R² {value:.3f} in {judge})" for strength, value in chosen]

    def describe(self) -> str:
        parts = max(2, round(1 / self.holdout))
        return (
            f"ridge regression on frozen, standardized features, for each target the strength of {len(self.strengths)} with the "
            f"largest R² on {1 / parts:.0%} of train held out ({parts}-fold cross-validation if these are below "
            f"{CROSS_VALIDATE_BELOW} images), then fitted to all of train" + layers_words(self.layers)
        )


def _targets(features: Features) -> Tensor:
    """The numbers float[N, P]. Raises ValueError for classes, and for numbers that are not finite."""
    y = features.y
    if not y.is_floating_point():
        raise ValueError(
            "the evaluator regression predicts numbers, and these are classes: give targets float32[N] or float32[N, P], for "
            "example by target_columns of parquet: or csv:"
        )
    if not torch.isfinite(y).all():
        raise ValueError("a target is NaN or infinite: leave out images without a number")
    return y.reshape(len(y), -1)
