"""Common part of evaluators that train a segmenter on a few images with masks: which images, and scores over draws of them."""

import bisect
import statistics
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.ssl.evaluation.evaluator import Evaluator, HeldOut, MaskedImage, MaskedImages, Score
from wildfern.ssl.evaluation.features import device_of, frozen, method_of
from wildfern.ssl.evaluation.metrics.classification_scores import joined
from wildfern.ssl.evaluation.metrics.paired_differences import draws_interval
from wildfern.ssl.evaluation.metrics.segmentation_thresholds import best_threshold
from wildfern.ssl.evaluation.protocols.segmentation import (
    FIXED,
    REGION_WORDS,
    Region,
    segmentation_scores,
    segmented,
)
from wildfern.ssl.evaluation.protocols.segmentation_training import Training, TrainWindows, train_image
from wildfern.ssl.evaluation.transformed import TransformedBackbone
from wildfern.ssl.models.segmentation_settings import SegmentationSettings

MOST_BYTES = 2**32  # of the images of a split that are kept in memory
MOST_FOR_THRESHOLD = 64  # train images on which a threshold is chosen


class Fitted(NamedTuple):
    """A trained segmenter, whose `segment` maps windows to logits, what to say of its training, and its threshold."""

    network: nn.Module
    words: str
    threshold: float


class TrainedSegmentation(Evaluator):
    """An evaluator that trains a segmenter on draws of train images and scores it on whole test images.

    A subclass gives `fit`. Train images are read once; those drawn are kept in memory as bytes, and so are all test images if
    there are several draws. Raises ValueError for a whole split of more than `MOST_BYTES`.
    """

    needs = "masks"
    needs_labels = False
    named = ("shots",)

    def __init__(
        self,
        steps: int,
        batch_size: int,
        weight_decay: float,
        shots: int | None,
        seeds: int,
        size: int | None,
        scale: float | None,
        region: Region,
        overlap: float,
        seed: int,
    ) -> None:
        wrong = [
            f"{name} is a whole number of at least 1, got {value}"
            for name, value in (("steps", steps), ("batch_size", batch_size), ("seeds", seeds), ("size", size))
            if value is not None and value < 1
        ]
        if shots is not None and shots < 1:
            wrong.append(f"shots is at least 1 train image, or null for all, got {shots}")
        if not 0 <= weight_decay < float("inf"):
            wrong.append(f"weight_decay is 0 or more, got {weight_decay}")
        if scale is not None and not 0 < scale < float("inf"):
            wrong.append(f"scale is a factor above 0, got {scale}")
        if not 0 <= overlap <= 0.95:
            wrong.append(f"overlap is a share of the side of a window in [0, 0.95], got {overlap}")
        if region not in get_args(Region):
            wrong.append(f"region is one of {', '.join(get_args(Region))}, got {region!r}")
        if wrong:
            raise ValueError("; ".join(wrong))
        self.steps, self.batch_size, self.weight_decay = steps, batch_size, weight_decay
        self.shots, self.seeds, self.seed = shots, seeds, seed
        self.size, self.scale, self.region, self.overlap = size, scale, region, overlap

    @abstractmethod
    def fit(self, train: MaskedImages, images: Sequence[MaskedImage], seed: int, what: str) -> tuple[nn.Module, str]:
        """A segmenter trained on these images of train, in evaluation mode, and what to say of its training.

        The backbone of train is not changed. `what` begins the words of the progress.
        """

    def check_network(self, backbone: nn.Module, size: int | None) -> None:
        maps_of_window(backbone, self._size(size))

    def __call__(self, train: MaskedImages, test: HeldOut[MaskedImages]) -> list[Score]:
        self.check_network(train.backbone, train.preprocessing.size)
        numbers = range(self.seed, self.seed + self.seeds)
        draws = drawn_images(train, self.shots, numbers)
        fitted = []
        for place, (number, images) in enumerate(zip(numbers, draws, strict=True), 1):
            what = f"draw {place} of {self.seeds}, " if self.seeds > 1 else ""
            network, words = self.fit(train, images, number, what)
            self.progress.detail(f"{what}choosing a threshold on train")
            found = self.segmented(network, images[:MOST_FOR_THRESHOLD], train)
            fitted.append(Fitted(network, words, best_threshold(found)[0]))
        held: Iterable[MaskedImage] = test.read()
        held = in_memory(held) if self.seeds > 1 else held
        chosen_on = f"{min(len(draws[0]), MOST_FOR_THRESHOLD)} train images"
        scores = []
        for place, one in enumerate(fitted, 1):
            images = self._counted(held, f"draw {place} of {self.seeds}") if isinstance(held, list) else held
            found = segmented(one.network, images, train.preprocessing, self.settings(train), self.overlap)
            scores.append(segmentation_scores(found, self.region, threshold=one.threshold, chosen_on=chosen_on))
        few = ""
        if self.shots is not None and len(draws[0]) < self.shots:
            few = f"train has only {len(draws[0])} images"
        words = joined(fitted[0].words, few)
        if self.seeds == 1:
            return [replace(scores[0][0], detail=joined(words, scores[0][0].detail)), *scores[0][1:]]
        same = len({tuple(image.item for image in images) for images in draws}) == 1
        found = over_draws(scores, [one.threshold for one in fitted], self.region, same)
        return [replace(found[0], detail=joined(few, found[0].detail)), *found[1:]]

    def segmented(
        self, network: nn.Module, images: Iterable[MaskedImage], train: MaskedImages
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_] | None]]:
        """Probability, mask and region of each train image."""
        for one in segmented(network, images, train.preprocessing, self.settings(train), self.overlap):
            yield one.probability, one.image.mask, one.image.region if self.region == "field_of_view" else None

    def training(self, train: MaskedImages, images: Sequence[MaskedImage], seed: int) -> Training:
        """That of a segmenter on these images."""
        settings, channels = self.settings(train), len(train.preprocessing.mean)
        prepared = [train_image(image, settings, self.region, channels) for image in images]
        device = torch.device(train.preprocessing.device or device_of(train.backbone))
        windows = TrainWindows(prepared, settings.size, seed)
        return Training(windows, self.steps, self.batch_size, train.preprocessing, device, self.progress)

    def settings(self, train: MaskedImages) -> SegmentationSettings:
        """The size of the windows, and the scale of the images."""
        size = self._size(train.preprocessing.size)
        return window_settings(train.backbone, size, self.scale)

    def training_words(self) -> str:
        """Which images and how many steps, for `describe`."""
        images = "all of train" if self.shots is None else f"{self.shots} images of train"
        over = "" if self.seeds == 1 else f", mean over {self.seeds} draws with an interval over draws (Student's t)"
        return (
            f"{images}{over}; {self.steps} steps of {self.batch_size} random windows, cross entropy and soft Dice loss"
        )

    def _size(self, size: int | None) -> int:
        if (found := self.size or size) is None:
            raise ValueError("windows need a size in pixels: set size")
        return found

    def _counted(self, images: Sequence[MaskedImage], detail: str) -> Iterator[MaskedImage]:
        for number, image in enumerate(images):
            self.progress.count(number, len(images), "test images", detail)
            yield image


def drawn_images(images: Iterable[MaskedImage], shots: int | None, seeds: Sequence[int]) -> list[list[MaskedImage]]:
    """For each seed `shots` images (None, or fewer: all), in order: a function of seed and number; images are read once.

    The images of a smaller draw are part of a larger one with the same seed. Raises ValueError if there are no images.
    """
    if shots is None:
        whole = in_memory(images)
        kept = [[(0.0, image) for image in whole] for _ in seeds]
    else:
        kept = [[] for _ in seeds]
        for image in images:
            for seed, own in zip(seeds, kept, strict=True):
                draw = uniform(fold(np.uint64(key("segmentation shots", seed)), image.item), 1).item()
                bisect.insort(own, (draw, image), key=lambda pair: pair[0])
                del own[shots:]
    if not kept[0]:
        raise ValueError("the train split has no images with masks to train on")
    return [sorted((image for _, image in own), key=lambda image: image.item) for own in kept]


def in_memory(images: Iterable[MaskedImage]) -> list[MaskedImage]:
    """All images. Raises ValueError if they take more than `MOST_BYTES`."""
    kept, total = [], 0
    for image in images:
        kept.append(image)
        total += image.pixels.nbytes + image.mask.nbytes + (0 if image.region is None else image.region.nbytes)
        if total > MOST_BYTES:
            raise ValueError(
                f"the images take more than {MOST_BYTES / 2**30:g} GiB: set shots for train, and seeds: 1 for test"
            )
    return kept


def unwrapped(backbone: nn.Module) -> nn.Module:
    """The backbone behind transforms of its images."""
    while isinstance(backbone, TransformedBackbone):
        backbone = backbone.backbone
    return backbone


def window_settings(backbone: nn.Module, size: int, scale: float | None) -> SegmentationSettings:
    """Windows of `size` px of images resized by `scale`; None: as a run that segments was trained, else 1."""
    trained = getattr(backbone, "segmentation", None)
    if scale is not None or not isinstance(trained, SegmentationSettings):
        side = size / (scale or 1.0)
        return SegmentationSettings(size, (side, side))
    ratio = size / trained.size  # of another size, windows show a larger or smaller part of the image at the same scale
    low, high = trained.crop_scale
    pixels = None if trained.crop_pixels is None else (ratio * trained.crop_pixels[0], ratio * trained.crop_pixels[1])
    return SegmentationSettings(size, pixels, (ratio**2 * low, ratio**2 * high))


def maps_of_window(backbone: nn.Module, size: int) -> list[Tensor]:
    """The feature maps of one black window. Raises ValueError for a backbone without maps, or that cannot take the size."""
    maps = method_of(backbone, "maps")
    channels = 3 if isinstance(backbone, TransformedBackbone) else getattr(backbone, "in_chans", 3)
    try:
        with frozen(backbone):
            return maps(torch.zeros(1, channels, size, size, device=device_of(backbone)))
    except ValueError:
        raise
    except Exception as error:  # networks raise any error for images that they cannot take
        name = getattr(unwrapped(backbone), "name", type(backbone).__name__)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name} cannot segment windows of {size} px: {reason}; set size") from error


def over_draws(
    draws: Sequence[Sequence[Score]], thresholds: Sequence[float], region: Region, same_images: bool = False
) -> list[Score]:
    """The mean of each score over draws, with its 95 % interval by Student's t; details are those of the first draw."""
    found = []
    chosen = f"thresholds {', '.join(f'{one:.2f}' for one in thresholds)}, chosen on the train images of each draw"
    how = {"dice_validation_threshold": chosen, "dice_oracle_threshold": "the best threshold on test for each draw"}
    all_alike = "all draws are all of train, with other windows" if same_images else ""
    for scores in zip(*draws, strict=True):
        first, values = scores[0], [score.value for score in scores]
        low, high = draws_interval(values, [0.0] * len(values))
        if low is not None and high is not None:
            low, high = max(0.0, low), min(1.0, high) if first.share else high
        scale, unit = (100, " %") if first.share else (1, "")
        words = f"draws: {', '.join(f'{scale * value:.1f}' for value in values)}{unit}"
        detail = joined(how.get(first.metric, f"threshold {FIXED}"), REGION_WORDS[region], words, all_alike)
        if low is not None:
            detail += f"; 95 % intervals of the mean and of differences over {len(values)} draws (Student's t)"
        per_image = np.mean([score.per_image for score in scores], axis=0, dtype=np.float64).astype(np.float32)
        mean = statistics.fmean(values)
        further: dict[str, Any] = {
            "per_image": per_image,
            "per_draw": tuple(values),
            "segmentation": first.segmentation,
        }
        found.append(Score(first.metric, mean, low, high, first.n, detail, first.share, **further))
    return found
