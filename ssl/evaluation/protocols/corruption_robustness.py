"""Accuracy on corrupted test images of a classifier fitted to clean train images (Hendrycks & Dietterich, ICLR 2019)."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from torch import Tensor, nn

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.registry import register
from wildfern.ssl.evaluation.corruptions.all_corruptions import (
    COMMON,
    SEVERITIES,
    SMALL_UP_TO,
    check_corruption,
    corrupt,
)
from wildfern.ssl.evaluation.evaluator import Evaluator, Features, HeldOut, LabeledImages, Score
from wildfern.ssl.evaluation.features import device_of, extract_features
from wildfern.ssl.evaluation.metrics.bootstrap import DRAWS, statistic_interval
from wildfern.ssl.evaluation.metrics.classification_scores import joined, mean_score, proportion
from wildfern.ssl.evaluation.metrics.label_counts import unseen_words
from wildfern.ssl.evaluation.protocols.knn import KNN, knn_rank
from wildfern.ssl.evaluation.protocols.linear_probe import LinearProbe, check_finite, fit_linear_probe

BATCH = 64  # images corrupted together: at 224 px the random bits of their values take 77 MB

Condition = tuple[str, int] | None  # corruption and severity; None: clean
Pairs = Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]


@register("evaluator", "corruptions")
class Corruptions(Evaluator):
    """Corrupted accuracy: the mean over corruptions and severities of the accuracy on test images that are corrupted so.

    Also the accuracy on the same images uncorrupted, the ratio of the two (unless that is 0), and the mean for each corruption
    and for each severity. The classifier is a linear probe, its strength chosen on held-out train, or kNN, on features of clean
    train images. `images` is the most test images to use, drawn at random: each is run through the backbone once for every
    corruption and severity. Which ones, and what is drawn for each, depends on `seed` and its place in test alone.
    """

    needs = "images"
    named = ("classifier",)

    def __init__(
        self,
        *,
        names: tuple[str, ...] = COMMON,
        severities: tuple[int, ...] = SEVERITIES,
        classifier: Literal["linear", "knn"] = "linear",
        images: int | None = None,
        k: int = 20,
        temperature: float = 0.07,
        seed: int = 0,
    ) -> None:
        for what, values in (("names", names), ("severities", severities)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{what} needs one or more values, none of them twice; got {list(values)}")
        for name, severity in itertools.product(names, severities):
            check_corruption(name, severity, channels=3, size=224)
        if classifier not in ("linear", "knn"):
            raise ValueError(f"classifier is 'linear' or 'knn', not {classifier!r}")
        if images is not None and images < 1:
            raise ValueError(f"images is the most test images to use, at least 1 (leave it out for all); got {images}")
        KNN(k=k, temperature=temperature)  # refuses impossible ones
        self.names, self.severities, self.classifier, self.images = tuple(names), tuple(severities), classifier, images
        self.k, self.temperature, self.seed = k, temperature, seed

    def check_network(self, backbone: nn.Module, size: int | None) -> None:
        if size is not None:
            self._check_images(channels=3, size=size)

    def __call__(self, train: LabeledImages, test: HeldOut[LabeledImages]) -> list[Score]:
        if train.multi_label:
            raise ValueError("the evaluator corruptions is for one label per image, and these are multi-hot")
        height, width, channels = train.pixels.shape[1:]
        if height != width:
            raise ValueError(
                f"images of {height} × {width} px cannot be corrupted: set a size, which makes them square"
            )
        self._check_images(channels, height)
        rank, chosen = self._fitted(train)
        held = test.read()
        places = self._places(len(held))
        conditions: list[Condition] = [None, *itertools.product(self.names, self.severities)]
        right = []
        for run, condition in enumerate(conditions):
            features = _features(held, self._images(held, places, condition, run))
            right.append((rank(features)[:, 0] == features.y).double().cpu())
        labels = held.y[places]
        return self._scores(torch.stack(right), joined(chosen, unseen_words(train.y, labels, train.class_names)))

    def describe(self) -> str:
        kinds = "the 15 common corruptions" if set(self.names) == set(COMMON) else ", ".join(self.names)
        levels = f"severit{'y' if len(self.severities) == 1 else 'ies'} {', '.join(map(str, self.severities))}"
        part = "" if self.images is None else f" of at most {self.images} test images (seed {self.seed})"
        fitted = LinearProbe() if self.classifier == "linear" else KNN(k=self.k, temperature=self.temperature)
        return (
            f"mean accuracy{part} over {kinds}, {levels}, of the resized image with the numbers of ImageNet-C (up to "
            f"{SMALL_UP_TO} px: of CIFAR-10-C) and drawn frost; clean train images: {fitted.describe()}"
        )

    def _check_images(self, channels: int, size: int) -> None:
        for name in self.names:
            check_corruption(name, self.severities[0], channels, size)

    def _fitted(self, train: LabeledImages) -> tuple[Callable[[Features], Tensor], str]:
        """What ranks the classes for features, as `knn_rank` does, and how it was chosen."""
        self.progress.detail("features of train")
        bank = _features(train, iter([(train.pixels, train.y)]), lambda n: self.progress.count(n, len(train), "images"))
        check_finite(bank)
        if self.classifier == "knn":
            k, temperature = self.k, self.temperature
            return lambda found: knn_rank(bank, found.x, k=k, temperature=temperature), f"bank of {len(bank)} images"
        fitted = fit_linear_probe(bank, seed=self.seed, progress=self.progress)
        return fitted.classifier.rank, fitted.detail

    def _places(self, count: int) -> NDArray[np.int64]:
        """Which of `count` test images are used."""
        draws = uniform(fold(np.uint64(key("corruptions images", self.seed)), np.arange(count)), 1)[:, 0]
        return np.sort(draws.argsort()[: self.images])

    def _images(self, held: LabeledImages, places: NDArray[np.int64], condition: Condition, run: int) -> Pairs:
        """The images under one condition, rounded to bytes, and their labels; `run` conditions are done."""
        runs = 1 + len(self.names) * len(self.severities)
        device = held.preprocessing.device or device_of(held.backbone)
        what = "clean" if condition is None else f"{condition[0]}, severity {condition[1]}"
        for start in range(0, len(places), BATCH):
            self.progress.count(run * len(places) + start, runs * len(places), "images", what)
            part = places[start : start + BATCH]
            pixels = held.pixels[part]
            if condition is not None:
                images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
                images = corrupt(images, *condition, fold(np.uint64(key("corruptions", self.seed)), part))
                pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            yield pixels, held.y[part]

    def _scores(self, right: Tensor, chosen: str) -> list[Score]:
        """Of float64[1 + runs, n], whether each image is right: first clean, then by corruption and severity."""
        clean, n = right[0], right.shape[1]
        corrupted = right[1:].view(len(self.names), len(self.severities), n)
        levels = "severity" if len(self.severities) == 1 else "severities"
        over = (
            f"mean over {len(self.names)} corruption{'s' * (len(self.names) > 1)} and {len(self.severities)} {levels}"
        )
        scores = [mean_score("corrupted_accuracy", corrupted.mean((0, 1)), joined(over, chosen))]
        per_image = clean.numpy().astype(np.float32)
        scores.append(replace(proportion("clean_accuracy", int(clean.sum()), n, chosen), per_image=per_image))
        if clean.any():
            scores.append(_relative_robustness(corrupted.mean((0, 1)).numpy(), clean.numpy(), chosen))
        for name, values in zip(self.names, corrupted.mean(1), strict=True):
            detail = f"mean over {len(self.severities)} {levels}"
            scores.append(mean_score(f"{name}_accuracy", values, joined(detail, chosen)))
        for severity, values in zip(self.severities, corrupted.mean(0).unbind(0), strict=True):
            detail = f"mean over {len(self.names)} corruption{'s' * (len(self.names) > 1)}"
            scores.append(mean_score(f"severity_{severity}_accuracy", values, joined(detail, chosen)))
        return scores


def _features(images: LabeledImages, pairs: Pairs, done: Callable[[int], None] = lambda n: None) -> Features:
    return extract_features(images.backbone, pairs, **vars(images.preprocessing), done=done)


def _relative_robustness(corrupted: NDArray[np.float64], clean: NDArray[np.float64], chosen: str) -> Score:
    def ratio(index: NDArray[np.int64]) -> float:
        right = clean[index].sum()
        return float(corrupted[index].sum() / right) if right else np.nan

    n = len(clean)
    low, high = statistic_interval(ratio, n)
    how = "no interval from one test image"
    if low is not None:
        how = f"95 % interval from {DRAWS} bootstrap resamples of {n} test images"
    detail = joined("corrupted / clean accuracy", chosen, how)
    return Score("relative_robustness", ratio(np.arange(n)), low, high, n, detail, share=False)


def mean_corruption_error(
    errors: Mapping[str, Sequence[float]], baseline_errors: Mapping[str, Sequence[float]]
) -> float:
    """mCE: the mean over corruptions of Σ errors / Σ errors of the baseline, both over the same severities; 1 for the baseline.

    Errors are shares in [0, 1] by corruption. In the paper (section 4), mCE is 100 times this and the baseline is AlexNet. Raises
    ValueError if corruptions or severities are not those of the baseline, and for a baseline without errors.
    """
    if not errors or errors.keys() != baseline_errors.keys():
        raise ValueError(f"errors of {sorted(errors)} need a baseline of the same, got {sorted(baseline_errors)}")
    for name, values in errors.items():
        if len(values) != len(baseline_errors[name]) or not sum(baseline_errors[name]) > 0:
            raise ValueError(f"{name}: both need an error for each severity, and the baseline one that is not 0")
    return float(np.mean([sum(values) / sum(baseline_errors[name]) for name, values in errors.items()]))


def effective_robustness(
    clean: float, shifted: float, reference_clean: ArrayLike, reference_shifted: ArrayLike
) -> float:
    """Accuracy under shift beyond what networks of this clean accuracy have (Taori et al., NeurIPS 2020, section 2).

    ρ = shifted - β(clean), with logit β(x) = a logit x + b fitted by least squares to the reference networks, of which float[M]
    gives both accuracies. Accuracies are shares in (0, 1), ρ is in (-1, 1). Raises ValueError for others, and for reference
    networks of fewer than two clean accuracies.
    """
    references = np.asarray(reference_clean, np.float64), np.asarray(reference_shifted, np.float64)
    if references[0].ndim != 1 or references[0].shape != references[1].shape or len(np.unique(references[0])) < 2:
        raise ValueError(
            "effective robustness needs both accuracies of at least two reference networks that differ in clean"
        )
    accuracies = np.concatenate([[clean, shifted], *references])
    if not ((accuracies > 0) & (accuracies < 1)).all():
        raise ValueError(f"accuracies are shares between 0 and 1, without these; got {accuracies.tolist()}")
    slope, intercept = np.polyfit(logit(references[0]), logit(references[1]), 1)
    return float(shifted - expit(slope * logit(clean) + intercept))
