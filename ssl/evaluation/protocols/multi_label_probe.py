"""Linear probe for images with several labels: one logistic regression per class, strength chosen by mean average precision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.ssl.evaluation.evaluator import Features, check_test
from wildfern.ssl.evaluation.metrics.average_precision import mean_average_precision
from wildfern.ssl.evaluation.protocols.linear_classifier import LinearClassifier
from wildfern.ssl.evaluation.protocols.logistic_regression import (
    ONE_THREAD_UP_TO,
    OneVsRestPath,
    compared,
    fitted,
    one_thread,
)
from wildfern.ssl.evaluation.stratified import class_ranks
from wildfern.ssl.tracking.progress import SILENT, Progress


@dataclass(frozen=True)
class MultiLabelResult:
    """`mean_average_precision` on test, the `strength` chosen and that of the held-out images (None: nothing was held out).

    `scores` float64[N, K] are the logits of the test images: -inf for a class that no train image has, inf for one that all have.
    """

    mean_average_precision: float
    strength: float
    holdout: float | None
    detail: str
    scores: Tensor = field(compare=False, repr=False)


def multi_label_probe(
    train: Features,
    read_test: Callable[[], Features],
    strengths: Sequence[float],
    *,
    parts: int,
    cross_validate_below: int,
    seed: int,
    progress: Progress = SILENT,
) -> tuple[MultiLabelResult, Features]:
    """The result and the test features, which are read after all choices; labels are multi-hot.

    One part of train in `parts` is held out, with an equal share of each image's rarest class; when that are fewer than
    `cross_validate_below` images, each part is held out in turn and their scores are pooled. The chosen strength has the
    largest mean average precision on them, the larger one of equals; it fits all of train.
    """
    check_multi_hot(train.y)
    strengths = sorted(set(strengths), reverse=True)
    with one_thread(train.x.numel() <= ONE_THREAD_UP_TO):
        part = _parts_of_images(train.y, parts, key("linear probe", seed))
        held_out = int((part == 0).sum())
        in_turn = range(parts if held_out < cross_validate_below else 1)
        held = torch.cat([(part == turn).nonzero()[:, 0] for turn in in_turn])
        if not train.y[held].any():
            strength, holdout, how = strengths[len(strengths) // 2], None, "fixed: too few images to hold any out"
        else:
            pooled = [
                _held_out_scores(train, part, turn, strengths, progress) for turn in in_turn if (part == turn).any()
            ]
            values = [mean_average_precision(torch.cat(scores), train.y[held]) for scores in zip(*pooled, strict=True)]
            best = max(range(len(strengths)), key=lambda number: (round(values[number], 9), -number))
            strength, holdout = strengths[best], values[best]
            judge = f"{parts}-fold cross-validation" if len(in_turn) > 1 else f"{held_out} train images held out"
            how = f"{100 * holdout:.1f} % mean average precision in {judge}"
        passed = strengths[: strengths.index(strength) + 1]
        classifier = fitted(OneVsRestPath, train, passed, progress)
        test = read_test()
        check_test(test)
        scores = _all_classes(classifier, train.y, test)
        result = MultiLabelResult(
            mean_average_precision=mean_average_precision(scores, test.y),
            strength=strength,
            holdout=holdout,
            detail=f"one regression per class, strength {strength:g} ({how})",
            scores=scores,
        )
    return result, test


def check_multi_hot(labels: Tensor) -> None:
    """Raises ValueError for multi-hot labels of train that are all alike: nothing can be learned from them."""
    if not len(labels) or bool((labels == labels[0]).all()):
        raise ValueError("all train images have the same labels; at least two kinds are needed")


def _parts_of_images(labels: Tensor, parts: int, seed: int) -> Tensor:
    """The part int64[N] that holds each image out; `parts` for the only image with its rarest class, which is always fitted."""
    counts = labels.sum(0, dtype=torch.int64)
    # An image of no class is in a group of its own kind, numbered after the classes.
    padded = torch.cat([labels, labels.new_ones(len(labels), 1)], 1).bool()
    rarity = torch.cat([counts, counts.new_full((1,), len(labels) + 1)])
    rarest = torch.where(padded, rarity, len(labels) + 2).argmin(1)
    part = class_ranks(rarest, seed) % parts
    _, index, sizes = torch.unique(rarest, return_inverse=True, return_counts=True)
    part[sizes[index] == 1] = parts
    return part


def _held_out_scores(
    train: Features, part: Tensor, turn: int, strengths: Sequence[float], progress: Progress
) -> list[Tensor]:
    """The scores of the images of part `turn` at each strength, fitted on the others."""
    rows, held = (part != turn).nonzero()[:, 0], train[part == turn]
    path = compared(OneVsRestPath, train, rows, strengths, progress, f"part {turn + 1} held out, ")
    return [_all_classes(classifier, train.y[rows], held) for classifier in path]


def _all_classes(classifier: LinearClassifier, fitted: Tensor, features: Features) -> Tensor:
    """The logits [N, K]; a class that none or all of the fitted images have gets -inf or inf."""
    logits = classifier.scores(features)
    constant = torch.where(fitted.bool().any(0), torch.inf, -torch.inf).to(logits)
    scores = constant.repeat(len(features), 1)
    scores[:, classifier.classes] = logits
    return scores
