"""Ridge regression on frozen features (Hoerl & Kennard, 1970), for all strengths and targets from one decomposition."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wildfern.ssl.evaluation.evaluator import Features
from wildfern.ssl.evaluation.protocols.logistic_regression import ELEMENTS, RegularizationPath


@dataclass(frozen=True)
class LinearPredictor:
    """Predictions are ((x - mean) / std) @ weight[D, P] + bias[P]."""

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """float64[N, P] on the CPU, of features float32[N, D]."""
        parts = [
            ((rows.to(self.weight) - self.mean) / self.std) @ self.weight
            for rows in x.split(max(256, ELEMENTS // x.shape[1]))
        ]
        centered = torch.cat(parts) if parts else self.weight.new_empty(0, len(self.bias))
        return centered.cpu().double() + self.bias


class RidgePath(RegularizationPath):
    """The minima for one training set with targets `y` float[N, P], in closed form.

    The objective of `strength` λ is  mean (y - ŷ)² + λ ‖w‖²  over features standardized by train statistics, for each target
    alone and with the bias left free: scikit-learn's `Ridge(alpha=λ n)`. With the principal axes V and the variances s of the
    features, w = V (Vᵀ Xᵀ y / n) / (s + λ).
    """

    def __init__(self, train: Features, rows: Tensor | None = None) -> None:
        super().__init__(train, rows)
        correlation = self.mean.new_zeros(len(self.mean), self.target.shape[1])
        for x, part in self._parts():
            correlation.addmm_(x.T, self.target[part])
        self.correlation = self.basis.T @ correlation / self.n

    def predictor(self, strengths: Sequence[float]) -> LinearPredictor:
        """The minimum at one strength for each target."""
        scale = self.variance[:, None] + self.variance.new_tensor(strengths)
        return LinearPredictor(self.mean, self.std, self.basis @ (self.correlation / scale), self.center)

    def _targets(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers of the targets, and their values around the mean, which is kept in float64 on the CPU."""
        values = labels.cpu().double()
        self.center = values.mean(0)
        return torch.arange(labels.shape[1]), (values - self.center).to(self.mean)
