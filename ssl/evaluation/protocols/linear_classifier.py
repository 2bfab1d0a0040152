"""A fitted linear classifier: standardization, weights and, if it was chosen, a temperature."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wildfern.ssl.evaluation.evaluator import Features
from wildfern.ssl.evaluation.metrics.classification_scores import ranked_classes

ELEMENTS = 2**20  # of the features of one product


@dataclass(frozen=True)
class LinearClassifier:
    """Standardization and weights: scores are ((x - mean) / std) @ weight[D, C] + bias[C].

    `temperature` divides the scores to give calibrated probabilities, if it was chosen on held-out train images.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor
    classes: Tensor
    temperature: float | None = None

    def accuracy(self, features: Features) -> float:
        """Accuracy; a label without train images counts as wrong."""
        return int((self.classes[self.scores(features).argmax(1)] == features.y.to(self.classes.device)).sum()) / len(
            features
        )

    def rank(self, features: Features) -> Tensor:
        """The (at most) five most likely labels of each image, int64[N, min(5, C)], best first."""
        return ranked_classes(self.scores(features), self.classes)

    def scores(self, features: Features) -> Tensor:
        """Logits [N, C], in the order of `classes`. Raises ValueError if one is not finite in float32."""
        parts = [
            torch.addmm(self.bias, (rows.to(self.weight) - self.mean) / self.std, self.weight)
            for rows in features.x.split(max(256, ELEMENTS // features.x.shape[1]))
        ]
        logits = torch.cat(parts) if parts else self.bias.new_empty(0, len(self.bias))
        if not logits.float().isfinite().all():
            why = "are too large for a linear probe" if features.x.isfinite().all() else "contain NaN or infinity"
            raise ValueError(f"the backbone's features {why}: it has diverged")
        return logits
