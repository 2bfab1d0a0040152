"""Evaluations during training: measure the method's detached features by the labels of the training images."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn


class OnlineEvaluation(nn.Module):
    """An evaluation during training, part of snapshots.

    Call `observe` for each micro-batch and then, once per step, `step`, or `forget` if the method skips the step; all on every
    rank. No random numbers are drawn: the backbone is bit-identical with and without. Between steps all state is in buffers, the
    same on every rank, and `steps` counts those taken.
    """

    root: str  # starts the names of its state in checkpoints
    absent: str  # words for a run that resumes from a checkpoint without this state
    steps: Tensor

    @property
    def parts(self) -> Sequence["OnlineEvaluation"]:
        """The evaluations with a state of their own."""
        return [self]

    def observe(self, features: Tensor | None, labels: Tensor | None) -> None:
        """Add a micro-batch: `Output.features` float[n, F] and `Batch.labels` int64[n] of this rank, -1 for unlabeled.

        Raises ValueError if features or labels are missing, if an image has several labels, and for a label outside the classes.
        """
        raise NotImplementedError

    def step(self) -> None:
        """Measure, then learn from, the observations since the last step of all ranks."""
        raise NotImplementedError

    def forget(self) -> None:
        """Discard the observations since the last step."""
        raise NotImplementedError

    def take_accuracy(self) -> dict[str, float]:
        """The accuracy since the last call by its name, which has the word "online"; empty if no image was measured."""
        raise NotImplementedError

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Raise StateMismatch for buffers of the right shapes and types with impossible values."""


class SeveralOnlineEvaluations(OnlineEvaluation):
    """Several evaluations of the same features."""

    def __init__(self, parts: Sequence[OnlineEvaluation]) -> None:
        super().__init__()
        self._parts = list(parts)

    @property
    def parts(self) -> Sequence[OnlineEvaluation]:
        return self._parts

    def observe(self, features: Tensor | None, labels: Tensor | None) -> None:
        for part in self._parts:
            part.observe(features, labels)

    def step(self) -> None:
        for part in self._parts:
            part.step()

    def forget(self) -> None:
        for part in self._parts:
            part.forget()

    def take_accuracy(self) -> dict[str, float]:
        return {name: value for part in self._parts for name, value in part.take_accuracy().items()}


def checked_observation(
    features: Tensor | None, labels: Tensor | None, classes: int, name: str
) -> tuple[Tensor, Tensor]:
    """The arguments of `observe`: features float32[n, F] without gradient, labels int64[n] on their device.

    Raises ValueError for what the evaluation `name` cannot measure.
    """
    if features is None:
        raise ValueError(
            f"this method sets no features: call `self.encode` and return them in Output, or disable the {name}"
        )
    if labels is None or labels.ndim != 1:
        raise ValueError(f"the {name} needs exactly one label for each image, which this source does not have")
    if labels.device.type == "cpu" and labels.max() >= classes:  # on a GPU this would wait for the device
        raise ValueError(f"the source declares {classes} classes but has the label {labels.max()}")
    return features.detach().float(), labels.to(features.device)
