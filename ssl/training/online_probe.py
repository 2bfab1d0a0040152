"""A linear classifier trained during pretraining on the method's detached features, to monitor their quality."""

import torch
from torch import Tensor
from torch.nn import functional as F

from wildfern.ssl.training.online_evaluation import OnlineEvaluation, checked_observation


class OnlineProbe(OnlineEvaluation):
    """Multinomial logistic regression on the backbone's features, standardized per image, trained with Adam.

    The gradient is the mean over all labeled images of the step on all ranks, so that W ranks train as one. Weights start at
    zero. The state includes partial sums.
    """

    root, absent = "probe/", "no online probe: it starts untrained"

    def __init__(self, features: int, classes: int, learning_rate: float, device: torch.device) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"an online probe needs at least 2 classes, got {classes}")
        self.classes, self.learning_rate = classes, learning_rate

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, device=device)

        for name in ("weight", "first_moment", "second_moment"):  # the last column is the bias
            self.register_buffer(name, zeros(classes, features + 1))
        self.register_buffer("steps", zeros(1))
        self.register_buffer("right", zeros(2))  # correct predictions and all predictions since `take_accuracy`
        self._sums = zeros(classes * (features + 1) + 2)  # gradient, correct predictions, predictions

    @torch.no_grad()
    def observe(self, features: Tensor | None, labels: Tensor | None) -> None:
        x, labels = checked_observation(features, labels, self.classes, "online probe")
        known = labels >= 0
        x = F.pad(F.layer_norm(x, x.shape[1:]), (0, 1), value=1.0)
        logits = x @ self.weight.T
        error = (logits.softmax(dim=1) - F.one_hot(labels.clamp_min(0), self.classes)) * known[:, None]
        right = ((logits.argmax(dim=1) == labels) & known).sum()
        self._sums += torch.cat([(error.T @ x).flatten(), right[None], known.sum()[None]])

    @torch.no_grad()
    def step(self) -> None:
        """Adam step on the observations since the last step (Kingma & Ba, 2015, algorithm 1), the same on every rank."""
        sums, self._sums = self._sums, torch.zeros_like(self._sums)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        self.right += sums[-2:]
        gradient = (sums[:-2] / sums[-1].clamp_min(1)).view_as(self.weight)
        self.steps += 1
        self.first_moment.lerp_(gradient, 0.1)
        self.second_moment.lerp_(gradient.square(), 0.001)
        mean = self.first_moment / (1 - 0.9**self.steps)
        scale = (self.second_moment / (1 - 0.999**self.steps)).sqrt()
        self.weight -= self.learning_rate * mean / (scale + 1e-8)

    def forget(self) -> None:
        self._sums.zero_()

    def take_accuracy(self) -> dict[str, float]:
        right, answers = self.right.tolist()
        self.right.zero_()
        return {"online_probe_accuracy": right / answers} if answers else {}
