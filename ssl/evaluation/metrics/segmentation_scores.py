"""All scores of the segmentation of one image."""

from numpy.typing import ArrayLike

from wildfern.ssl.evaluation.metrics.cl_dice import cl_dice
from wildfern.ssl.evaluation.metrics.components import component_error
from wildfern.ssl.evaluation.metrics.overlap import binary_image, overlap
from wildfern.ssl.evaluation.metrics.pixel_ranking import at_least, average_precision, probability_image, roc_auc
from wildfern.ssl.evaluation.metrics.tolerant_overlap import tolerant_overlap
from wildfern.ssl.evaluation.metrics.width_recall import recall_by_width


def image_scores(
    probability: ArrayLike,
    mask: ArrayLike,
    threshold: float,
    *,
    region: ArrayLike | None = None,
    tolerance: float = 2.0,
    widths: ArrayLike | None = None,
) -> dict[str, float]:
    """Scores by name; probability float[H, W] in [0, 1], mask and region [H, W] of 0 and 1, tolerance and widths in pixels.

    Predicted is what is at least the threshold. Which names there are depends on mask, region and widths alone, so it is the same
    for all models: without mask pixels in the region there is no recall, cl_dice, roc_auc and average_precision, and without
    background no specificity and roc_auc. Raises ValueError for a threshold outside of [0, 1]; other errors as
    the scores' own functions.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is a probability in [0, 1], got {threshold}")
    mask = binary_image(mask, "mask")
    probability = probability_image(probability, mask)
    predicted = at_least(probability, threshold)
    counts = overlap(predicted, mask, region)
    scores: dict[str, float | None] = {
        "dice": counts.dice,
        "iou": counts.iou,
        "precision": counts.precision,
        "recall": counts.recall if counts.true_positive + counts.false_negative else None,
        "specificity": counts.specificity if counts.true_negative + counts.false_positive else None,
        "accuracy": counts.accuracy,
        "roc_auc": roc_auc(probability, mask, region),
        "average_precision": average_precision(probability, mask, region),
        "cl_dice": cl_dice(predicted, mask, region),
        "tolerant_f1": tolerant_overlap(predicted, mask, tolerance, region).f1,
        "component_error": float(component_error(predicted, mask, region)),
    }
    scores |= {
        name: found for name, (found, _) in recall_by_width(predicted, mask, widths=widths, region=region).items()
    }
    return {name: score for name, score in scores.items() if score is not None}
