"""Accuracy of each group of test images, such as those of one hospital or country; the worst, the gap and the deviation.

Worst-group accuracy as of Sagawa et al., ICLR 2020, "Distributionally robust neural networks for group shifts", and WILDS (Koh et
al., ICML 2021).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wildfern.ssl.evaluation.evaluator import Predictions, Score
from wildfern.ssl.evaluation.metrics.accuracy_spread import PartAccuracy, accuracy_gap, accuracy_std, worst_accuracy

if TYPE_CHECKING:
    from wildfern.ssl.data.groups import Groups

LEAST = 10  # test images of a group that is compared


@dataclass(frozen=True)
class GroupAccuracies:
    """The groups of the test images by one column: those that are `compared`, and what is left.

    `other`: the images of groups with too few images, together; `unknown`: those without a known group; None if there are none.
    """

    column: str
    compared: tuple[PartAccuracy, ...]
    other: PartAccuracy | None
    unknown: PartAccuracy | None

    @property
    def rows(self) -> tuple[PartAccuracy, ...]:
        """All of them, in that order."""
        return (*self.compared, *(part for part in (self.other, self.unknown) if part is not None))


def group_accuracies(predictions: Predictions, groups: "Groups", *, least: int = LEAST) -> GroupAccuracies:
    """The accuracy of each group with at least `least` test images, in the order of `groups.names`.

    `groups.codes` are of the n test images, in the order of the predictions. Raises ValueError for other numbers of images, and
    for `least` below 1.
    """
    if least < 1:
        raise ValueError(f"least is a number of test images of at least 1, got {least}")
    if len(groups.codes) != len(predictions):
        raise ValueError(
            f"the groups by {groups.name} are of {len(groups.codes)} images, but {len(predictions)} test images were "
            "classified"
        )
    right, codes = predictions.right.cpu().numpy(), groups.codes
    counts = np.bincount(codes + 1, minlength=len(groups.names) + 1)  # first of images without a group
    hits = np.bincount(codes + 1, right, len(groups.names) + 1).astype(np.int64)
    parts = [
        PartAccuracy(name, n, hit)
        for name, n, hit in zip(("unknown", *groups.names), counts.tolist(), hits.tolist(), strict=True)
    ]
    unknown, parts = parts[0], [part for part in parts[1:] if part.n]
    small = [part for part in parts if part.n < least]
    pooled = f"other ({len(small)} group{'s' * (len(small) > 1)})"
    return GroupAccuracies(
        groups.name,
        tuple(part for part in parts if part.n >= least),
        PartAccuracy(pooled, sum(part.n for part in small), sum(part.right for part in small)) if small else None,
        unknown if unknown.n else None,
    )


def group_scores(found: GroupAccuracies) -> list[Score]:
    """Accuracy of the worst group, gap from the best to the worst, and standard deviation over the compared groups.

    [] if fewer than two are compared.
    """
    if len(found.compared) < 2:
        return []
    left_out = [f"{part.name}: {part.n}" for part in (found.other, found.unknown) if part is not None]
    detail = f"test images left out: {', '.join(left_out)}" if left_out else ""
    return [
        worst_accuracy(f"worst_group_accuracy ({found.column})", found.compared, "groups", detail),
        accuracy_gap(f"group_accuracy_gap ({found.column})", found.compared, "groups", detail),
        accuracy_std(f"group_accuracy_std ({found.column})", found.compared, "groups", detail),
    ]
