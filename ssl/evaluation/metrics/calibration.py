"""Calibration: whether a classifier is right as often as it is confident, before and after temperature scaling.

Guo et al., ICML 2017, "On calibration of modern neural networks": eq. 3 and section 4.2.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.ssl.evaluation.evaluator import Predictions, Score
from wildfern.ssl.evaluation.metrics.bootstrap import DRAWS, LEVEL, statistic_interval
from wildfern.ssl.evaluation.metrics.classification_scores import joined, mean_score

Binning = Literal["width", "mass"]
BINS = 15  # Guo et al.
TEMPERATURES = (0.05, 20.0)
ELEMENTS = 2**22  # of logits, or of outcomes, at a time


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in [0.05, 20] at which softmax(logits / temperature) has the least mean negative log-likelihood.

    logits float[n, C] of train images that the classifier was not fitted to; labels int64[n], the numbers 0 … C - 1 of the true
    classes' columns. The loss is convex in 1 / temperature. If all images are right it has no minimum, and the result is some low
    temperature at which it vanishes. Raises ValueError for no images, labels without a column, and logits that are not finite.
    """
    _check(logits, "logits")
    if labels.shape != logits.shape[:1] or int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise ValueError(
            f"labels are {len(logits)} columns of logits, 0 to {logits.shape[1] - 1}; got {list(labels.shape)} from "
            f"{int(labels.min())} to {int(labels.max())}"
        )

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        parts = zip(_parts(logits), labels.to(logits.device).split(_rows(logits)), strict=True)
        return sum(F.cross_entropy(part * scale, label, reduction="sum").item() for part, label in parts) / len(logits)

    bounds = tuple(math.log(bound) for bound in TEMPERATURES)
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7}).x)


def calibration_error(confidence: Tensor, right: Tensor, *, bins: int = BINS, binning: Binning = "width") -> float:
    """Expected calibration error in [0, 1]: the mean over n images of |accuracy - mean confidence| of the image's bin (eq. 3).

    confidence float[n] is the probability of the first guess, right bool[n]. Bins are ((m - 1) / bins, m / bins], or with
    binning "mass" have about n / bins images each, equal confidences in one bin (Nguyen & O'Connor, EMNLP 2015). Raises
    ValueError for no images, fewer than one bin and confidences outside of [0, 1].
    """
    return _Binned(_numbers(confidence), _numbers(right), bins, binning).error()


def calibration_scores(
    predictions: Predictions, *, bins: int = BINS, binning: Binning = "width", detail: str = ""
) -> list[Score]:
    """Expected calibration error, mean negative log-likelihood (nats) and Brier score (1950; in [0, 2]) of the test images.

    With a `temperature` the same follow for logits / temperature, named `scaled_…`. A class without train images has probability
    0: its images are wrong, add 1 to their Brier score, and are left out of the likelihood. [] without logits.
    """
    logits, classes = predictions.logits, predictions.classes
    if logits is None or classes is None:
        return []
    _check(logits, "logits of the test images")
    target = _columns(predictions.labels.to(classes.device), classes).to(logits.device)
    scores = _scores(_Outcomes.of(logits, target, 1.0), "", bins, binning, detail)
    if predictions.temperature is not None:
        how = f"temperature {predictions.temperature:.3g}, fitted on held-out train"
        outcomes = _Outcomes.of(logits, target, predictions.temperature)
        scores += _scores(outcomes, "scaled_", bins, binning, joined(detail, how))
    return scores


@dataclass(frozen=True)
class _Outcomes:
    """Of each image, float64[n] on the CPU; the negative log-likelihood of a class that is not among those of train is inf."""

    confidence: Tensor
    right: Tensor
    loss: Tensor
    brier: Tensor

    @classmethod
    def of(cls, logits: Tensor, target: Tensor, temperature: float) -> "_Outcomes":
        rows = []
        for part, column in zip(_parts(logits), target.split(_rows(logits)), strict=True):
            log_p = (part / temperature).log_softmax(1)
            known = column >= 0
            own = log_p.gather(1, column.clamp(min=0)[:, None])[:, 0].masked_fill(~known, -math.inf)
            highest, guess = log_p.max(1)
            p = log_p.exp()
            brier = p.square().sum(1) - 2 * own.exp() + 1  # Σ (p - 1[class])², expanded
            right = (guess == column).to(brier)
            rows.append(torch.stack([highest.exp().clamp(max=1), right, -own, brier]).cpu())
        return cls(*torch.cat(rows, 1).double())


def _scores(outcomes: _Outcomes, prefix: str, bins: int, binning: Binning, detail: str) -> list[Score]:
    known = outcomes.loss.isfinite()
    unknown = int((~known).sum())
    left_out = f"{unknown} of {len(known)} test images left out, as no train image has their class" if unknown else ""
    scores = [
        _error_score(prefix, outcomes, bins, binning, detail),
        mean_score(f"{prefix}brier_score", outcomes.brier, detail, share=False),
    ]
    if known.any():
        loss = mean_score(
            f"{prefix}negative_log_likelihood", outcomes.loss[known], joined(detail, left_out), share=False
        )
        scores.insert(1, loss)
    return scores


def _error_score(prefix: str, outcomes: _Outcomes, bins: int, binning: Binning, detail: str) -> Score:
    """The value is too large by chance, and a resample's more so: its interval is reflected at the value, which removes that.

    Its lower bound is 0 if a calibrated classifier would show as much in more than 2.5 % of test sets.
    """
    binned = _Binned(outcomes.confidence.numpy(), outcomes.right.numpy(), bins, binning)
    value, n = binned.error(), len(binned.gap)
    below, above = statistic_interval(binned.error, n)
    calibrated = binned.calibrated_errors()
    kind = "of equal width" if binning == "width" else "of equal numbers of images"
    detail = joined(
        detail,
        f"{bins} bins {kind}",
        f"{100 * calibrated.mean():.1f} % if confidences were exact (mean of {DRAWS} draws)",
    )
    metric = f"{prefix}{'expected' if binning == 'width' else 'adaptive'}_calibration_error"
    if below is None or above is None:
        return Score(metric, value, None, None, n, joined(detail, "no interval from one test image"))
    low, high = max(0.0, min(value, 2 * value - above)), min(1.0, max(value, 2 * value - below))
    if value <= np.quantile(calibrated, (1 + LEVEL) / 2):
        low = 0.0
    how = f"95 % basic interval from {DRAWS} bootstrap resamples of {n} test images"
    return Score(metric, value, low, high, n, joined(detail, how))


class _Binned:
    """Images by the bin of their confidence."""

    def __init__(
        self, confidence: NDArray[np.float64], right: NDArray[np.float64], bins: int, binning: Binning
    ) -> None:
        if bins < 1:
            raise ValueError(f"bins is a number of at least 1, got {bins}")
        if not len(confidence) or len(confidence) != len(right):
            raise ValueError(
                f"confidence and right have one value for each image, got {len(confidence)} and {len(right)}"
            )
        if not ((confidence >= 0) & (confidence <= 1)).all():
            raise ValueError("confidences are probabilities, in [0, 1]")
        if binning == "width":
            edges = np.arange(1, bins) / bins
        else:
            last = np.arange(1, bins) * len(confidence) // bins - 1
            edges = np.sort(confidence)[np.maximum(last, 0)]
        self.bins, self.confidence, self.gap = bins, confidence, right - confidence
        self.number = np.searchsorted(edges, confidence, side="left")  # a confidence at an edge is in the bin below

    def error(self, index: NDArray[np.int64] | slice = slice(None)) -> float:
        """The calibration error of these images, in the bins of all."""
        gap = self.gap[index]
        return float(np.abs(np.bincount(self.number[index], gap, self.bins)).sum() / len(gap))

    def calibrated_errors(self) -> NDArray[np.float64]:
        """float64[DRAWS]: errors of classifiers that are right with a probability equal to these confidences.

        Consistency resampling (Bröcker & Smith, 2007; Vaicenavicius et al., AISTATS 2019).
        """
        n = len(self.confidence)
        generator = np.random.Generator(np.random.Philox(key=key("calibrated outcomes", n)))
        order = np.argsort(self.number, kind="stable")
        confidence, starts = self.confidence[order], np.unique(self.number[order], return_index=True)[1]
        block = max(1, ELEMENTS // n)
        errors = []
        for start in range(0, DRAWS, block):
            right = generator.random((min(block, DRAWS - start), n)) < confidence
            errors.append(np.abs(np.add.reduceat(right - confidence, starts, axis=1)).sum(1) / n)
        return np.concatenate(errors)


def _columns(labels: Tensor, classes: Tensor) -> Tensor:
    """The column of each label, -1 for one that is not among the classes."""
    ordered, order = classes.sort()
    place = torch.searchsorted(ordered, labels).clamp(max=len(classes) - 1)
    return torch.where(ordered[place] == labels, order[place], -1)


def _check(logits: Tensor, what: str) -> None:
    if logits.ndim != 2 or not len(logits):
        raise ValueError(f"{what} are float[n, C] of at least one image, got {list(logits.shape)}")
    if not torch.isfinite(logits).all():
        raise ValueError(f"the {what} contain NaN or infinity: the classifier has diverged")


def _rows(logits: Tensor) -> int:
    return max(1, ELEMENTS // logits.shape[1])


def _parts(logits: Tensor) -> Iterator[Tensor]:
    """The rows some at a time, in float64 where the device has it."""
    dtype = torch.float32 if logits.device.type == "mps" else torch.float64
    return (part.detach().to(dtype) for part in logits.split(_rows(logits)))


def _numbers(values: Tensor) -> NDArray[np.float64]:
    return values.detach().cpu().double().numpy()
