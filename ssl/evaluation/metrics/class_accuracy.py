"""Accuracy of each class, the worst one, their standard deviation, and classes with many, medium and few train images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wildfern.ssl.evaluation.evaluator import Predictions, Score
from wildfern.ssl.evaluation.metrics.accuracy_spread import PartAccuracy, accuracy_std, worst_accuracy
from wildfern.ssl.evaluation.metrics.classification_scores import mean_score
from wildfern.ssl.evaluation.metrics.label_counts import LabelCounts

# Liu et al., CVPR 2019, "Large-scale long-tailed recognition in an open world", section 4
MANY = 100  # train images; more are many
FEW = 20  # fewer are few


@dataclass(frozen=True)
class ClassAccuracy(PartAccuracy):
    """One class of test (its recall): `n` test images, of which the first guess is right for `right`; `train` images."""

    label: int
    train: int


def class_accuracies(
    predictions: Predictions, train: LabelCounts, class_names: Sequence[str] | None = None
) -> tuple[ClassAccuracy, ...]:
    """One row for each class that test images have, by label; classes without names are named by their label.

    Raises ValueError for test images without a label.
    """
    labels = predictions.labels.cpu()
    if (labels < 0).any():
        raise ValueError(f"{int((labels < 0).sum())} of {len(labels)} test images have no label (-1)")
    found, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    right = torch.zeros_like(counts).index_add_(0, index, predictions.right.cpu().long())
    return tuple(
        ClassAccuracy(_name(label, class_names), n, hits, label, train.of_class.get(label, 0))
        for label, n, hits in zip(found.tolist(), counts.tolist(), right.tolist(), strict=True)
    )


def class_scores(predictions: Predictions, train: LabelCounts, class_names: Sequence[str] | None = None) -> list[Score]:
    """Worst class, standard deviation over the classes, then many-, medium- and few-shot accuracy (see `shot_scores`).

    The standard deviation is a measure of robustness to imbalance in long-tailed self-supervised learning; SDCLR (Jiang et al.,
    ICML 2021) prints it, and has in its tables that of the three values of many, medium and few. [] if test has one class.
    """
    classes = class_accuracies(predictions, train, class_names)
    if len(classes) < 2:
        return []
    return [
        worst_accuracy("worst_class_accuracy", classes, "classes"),
        accuracy_std("class_accuracy_std", classes, "classes"),
        *shot_scores(predictions, train),
    ]


def shot_scores(predictions: Predictions, train: LabelCounts) -> list[Score]:
    """Mean accuracy of the test classes with more than 100, 20 to 100, and fewer than 20 train images (Liu et al., 2019).

    Classes count alike, whatever their number of test images; `n` and `per_image` are of the images of those classes. [] unless
    test has classes of at least two of the three kinds.
    """
    right = predictions.right.cpu()
    found, index, counts = torch.unique(predictions.labels.cpu(), return_inverse=True, return_counts=True)
    sizes = torch.tensor([train.of_class.get(label, 0) for label in found.tolist()])
    kinds = {
        "many": (sizes > MANY, f"more than {MANY}"),
        "medium": ((sizes >= FEW) & (sizes <= MANY), f"{FEW} to {MANY}"),
        "few": (sizes < FEW, f"fewer than {FEW}"),
    }
    if sum(bool(of_kind.any()) for of_kind, _ in kinds.values()) < 2:
        return []
    scores = []
    for kind, (of_kind, words) in kinds.items():
        if not of_kind.any():
            continue
        chosen, classes = of_kind[index], int(of_kind.sum())
        weight = int(chosen.sum()) / classes / counts[index[chosen]].double()
        detail = f"mean of {classes} class{'es' * (classes > 1)} with {words} train images"
        scores.append(mean_score(f"{kind}_shot_accuracy", right[chosen] * weight, detail))
    return scores


def _name(label: int, class_names: Sequence[str] | None) -> str:
    return class_names[label] if class_names is not None and label < len(class_names) else str(label)
