"""A linear classifier trained during pretraining on the method's detached features, to monitor their quality."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OnlineProbe(nn.Module):
    """Multinomial logistic regression on the backbone's features, standardized per image, trained with Adam.

    Call `observe` for each micro-batch and `step` once per step; both on every rank. The gradient is the mean over all labeled
    images of the step on all ranks, so that W ranks train as one. Weights start at zero and no random numbers are drawn: the
    backbone is bit-identical with and without a probe. The state includes partial sums.
    """

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
        """Add a micro-batch: `Output.features` float[n, F] and `Batch.labels` int64[n] of this rank, -1 for unlabeled.

        Accuracy is measured before this step's update. Raises ValueError if features or labels are missing, if an image has
        several labels, and for a label outside the classes.
        """
        if features is None:
            raise ValueError(
                "this method sets no features: call `self.encode` and return them in Output, or disable the online probe"
            )
        if labels is None or labels.ndim != 1:
            raise ValueError("the online probe needs exactly one label for each image, which this source does not have")
        if labels.device.type == "cpu" and labels.max() >= self.classes:  # on a GPU this would wait for the device
            raise ValueError(f"the source declares {self.classes} classes but has the label {labels.max()}")
        labels = labels.to(features.device)
        known = labels >= 0
        x = F.pad(F.layer_norm(features.detach().float(), features.shape[1:]), (0, 1), value=1.0)
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
        """Discard the observations since the last step, when the method skips the step."""
        self._sums.zero_()

    def take_accuracy(self) -> dict[str, float]:
        """`online_probe_accuracy` since the last call, as a share; empty if no image had a label."""
        right, answers = self.right.tolist()
        self.right.zero_()
        return {"online_probe_accuracy": right / answers} if answers else {}
