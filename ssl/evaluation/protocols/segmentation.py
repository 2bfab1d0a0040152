"""Segmentation of whole images by a network with a decoder, compared with masks of people."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import Evaluator, HeldOut, MaskedImage, MaskedImages, Score, SegmentationDetails
from wildfern.ssl.evaluation.features import device_of, frozen
from wildfern.ssl.evaluation.metrics.classification_scores import joined, mean_score
from wildfern.ssl.evaluation.metrics.pixel_ranking import (
    CURVE_THRESHOLDS,
    at_least,
    count_at_least,
    curve_counts,
    sorted_pixels,
)
from wildfern.ssl.evaluation.metrics.segmentation_scores import image_scores
from wildfern.ssl.evaluation.metrics.segmentation_thresholds import THRESHOLDS
from wildfern.ssl.evaluation.preprocessing import Preprocessing
from wildfern.ssl.evaluation.report.segmentation_overlays import SpreadOverlays
from wildfern.ssl.models.segmentation_settings import SegmentationSettings

FIXED = 0.5
Region = Literal["field_of_view", "all"]
REGION_WORDS = {"field_of_view": "inside the field of view", "all": "all pixels"}
NOT_SHARES = ("component_error",)


class Segmented(NamedTuple):
    """An image with the probability of each pixel, float32[H, W]."""

    probability: NDArray[np.float32]
    image: MaskedImage


@register("evaluator", "segmentation")
class Segmentation(Evaluator):
    """Segmentation by the run's own decoder, trained without these masks: mean Dice of whole images, and further scores.

    Dice (F1), IoU, precision, recall, ROC AUC, average precision, clDice, F1 with a tolerance of 2 px, error of the number of
    components, and recall by width are those of each image at the threshold 0.5, averaged. `dice_validation_threshold` is at the
    threshold that the run chose on rendered images, `dice_oracle_threshold` at the one that is best on test: an upper bound, not
    a result. Train is not used.

    region: count pixels inside the field of view, for images that come with one, or all. overlap: of neighboring windows, as a
    share of their side. scale: by which images are resized (None: so that objects are as wide as in training).
    """

    needs = "masks"
    needs_labels = False

    def __init__(
        self,
        *,
        region: Region = "field_of_view",
        overlap: Annotated[float, Field(ge=0, le=0.95)] = 0.25,
        scale: Annotated[float, Field(gt=0)] | None = None,
        tolerance: Annotated[float, Field(ge=0)] = 2.0,
    ) -> None:
        self.region, self.overlap, self.scale, self.tolerance = region, overlap, scale, tolerance

    def check_network(self, backbone: nn.Module, size: int | None) -> None:
        if getattr(backbone, "segmentation", None) is None:
            raise ValueError(
                "needs a network with a decoder, such as that of a run of freecos; segmentation_finetune and segmentation_probe "
                "train one on labeled images"
            )

    def __call__(self, train: MaskedImages, test: HeldOut[MaskedImages]) -> list[Score]:
        self.check_network(train.backbone, None)
        network, settings = train.backbone, train.backbone.segmentation
        assert isinstance(settings, SegmentationSettings)  # of `check_network`
        images: Any = test.read()
        found = segmented(network, images, train.preprocessing, settings, self.overlap, self.scale)
        return segmentation_scores(found, self.region, self.tolerance, settings.threshold, settings.chosen_on)


def segmented(
    network: nn.Module,
    images: Iterable[MaskedImage],
    preprocessing: Preprocessing,
    settings: SegmentationSettings,
    overlap: float = 0.25,
    scale: float | None = None,
) -> Iterator[Segmented]:
    """The probabilities of images, from windows of `settings.size`; `network` has `segment`."""
    from wildfern.ssl.segmentation.windows import probability_map  # which imports this package

    device = torch.device(preprocessing.device) if preprocessing.device is not None else device_of(network)
    network.to(device)
    for image in images:
        with frozen(network):  # not while the caller has the result: it may not come back
            probability = probability_map(
                network.segment,
                image.pixels,
                size=settings.size,
                mean=preprocessing.mean,
                std=preprocessing.std,
                overlap=overlap,
                scale=settings.scale(*image.pixels.shape[:2]) if scale is None else scale,
                device=device,
                precision=preprocessing.precision,
            )
        yield Segmented(probability, image)


def segmentation_scores(
    images: Iterable[Segmented],
    region: Region = "field_of_view",
    tolerance: float = 2.0,
    threshold: float | None = None,
    chosen_on: str = "",
) -> list[Score]:
    """The scores of `Segmentation`, each the mean over images with its interval; `threshold` is one chosen without test.

    The main score has the details of the segmentation, with images at `threshold` where there is one. Each image is read once
    and none is kept. Raises ValueError if there are no images, and for probabilities that are not finite.
    """
    values: dict[str, list[float]] = defaultdict(list)
    by_threshold: list[NDArray[np.float64]] = []
    counts = np.zeros((2, len(CURVE_THRESHOLDS)), np.int64)
    overlays = SpreadOverlays()
    nearest = None if threshold is None else int(np.abs(THRESHOLDS - threshold).argmin())
    shown = FIXED if nearest is None else float(THRESHOLDS[nearest])
    for probability, image in images:
        if not np.isfinite(probability).all():
            raise ValueError("the segmentation contains NaN or infinity: the network has diverged")
        inside = image.region if region == "field_of_view" else None
        scores = image_scores(probability, image.mask, FIXED, region=inside, tolerance=tolerance)
        for name, value in scores.items():
            values[name].append(value)
        positive, negative = sorted_pixels(probability, image.mask, inside)
        by_threshold.append(_dice(positive, negative))
        counts += curve_counts(positive, negative)
        dice = scores["dice"] if nearest is None else float(by_threshold[-1][nearest])
        overlays.add(image, at_least(probability, shown), inside, dice)
    if not by_threshold:
        raise ValueError("there is no image to segment")
    where = REGION_WORDS[region]
    fixed = joined(f"threshold {FIXED}", where)
    found = [mean_score(name, torch.tensor(v), fixed, name not in NOT_SHARES) for name, v in values.items()]
    found[0] = replace(found[0], segmentation=SegmentationDetails(counts, threshold, *overlays.spread()))
    table = np.stack(by_threshold)
    if nearest is not None:
        chosen = table[:, nearest]
        how = joined(f"threshold {threshold:.2f}, chosen on {chosen_on}", where)
        found.append(mean_score("dice_validation_threshold", torch.from_numpy(chosen), how))
    best = int(table.mean(axis=0).argmax())
    how = joined(f"oracle threshold {THRESHOLDS[best]:.2f}, the best on test: an upper bound", where)
    found.append(mean_score("dice_oracle_threshold", torch.from_numpy(table[:, best]), how))
    return found


def _dice(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> NDArray[np.float64]:
    """Dice of `sorted_pixels` at each of `THRESHOLDS`; 1 where nothing is predicted in an image without objects."""
    found, wrong = count_at_least(positive, THRESHOLDS), count_at_least(negative, THRESHOLDS)
    whole = found + wrong + len(positive)
    return np.where(whole > 0, 2 * found / np.maximum(whole, 1), 1.0)
