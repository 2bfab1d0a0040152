"""What else the predictions of a classifier tell: calibration, the spread over classes, and that over groups of test images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wildfern.ssl.evaluation.evaluator import Score
from wildfern.ssl.evaluation.metrics.calibration import calibration_scores
from wildfern.ssl.evaluation.metrics.class_accuracy import class_scores
from wildfern.ssl.evaluation.metrics.group_accuracy import group_accuracies, group_scores
from wildfern.ssl.evaluation.metrics.label_counts import LabelCounts

if TYPE_CHECKING:
    from wildfern.ssl.data import Groups


def breakdown(
    scores: Sequence[Score],
    train: LabelCounts,
    groups: Sequence["Groups"] = (),
    class_names: Sequence[str] | None = None,
) -> list[Score]:
    """Further scores of an evaluator whose main score has predictions; [] for others.

    `train` counts the train images of each class; `groups` are those of the test images, in the order of the predictions.
    """
    predictions = scores[0].predictions
    if predictions is None:
        return []
    found = [*calibration_scores(predictions), *class_scores(predictions, train, class_names)]
    for one in groups:
        found += group_scores(group_accuracies(predictions, one))
    known = {score.metric for score in scores}
    return [score for score in found if score.metric not in known]
