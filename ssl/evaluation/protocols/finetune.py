"""Supervised fine-tuning of a copy of the backbone: warm-up and cosine, the last epoch is scored; learning rates by hold-out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import (
    Evaluator,
    HeldOut,
    LabeledImages,
    Predictions,
    Score,
    check_single_label,
    check_test,
)
from wildfern.ssl.evaluation.features import device_of
from wildfern.ssl.evaluation.labeled_chunks import Labels
from wildfern.ssl.evaluation.metrics.average_precision import multi_label_scores
from wildfern.ssl.evaluation.metrics.classification_scores import joined, predicted_scores, ranked_classes
from wildfern.ssl.evaluation.metrics.label_counts import unseen_words
from wildfern.ssl.evaluation.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Interpolation,
    Pixels,
    Precision,
    Preprocessing,
    resize_center_crop,
)
from wildfern.ssl.evaluation.protocols.finetune_augmentation import FinetuneAugmentation
from wildfern.ssl.evaluation.protocols.finetune_augmentation import flip_and_crop as flip_and_crop
from wildfern.ssl.evaluation.protocols.finetune_learning_rate import choose_learning_rate
from wildfern.ssl.evaluation.protocols.finetune_regularization import Regularization
from wildfern.ssl.evaluation.protocols.finetune_settings import HOLDOUT, FinetuneSettings, Optimization
from wildfern.ssl.evaluation.protocols.finetune_training import FinetuneTraining, TrainImages
from wildfern.ssl.evaluation.protocols.multi_label_probe import check_multi_hot
from wildfern.ssl.tracking.progress import SILENT, Progress


@dataclass(frozen=True)
class FinetuneResult:
    """`accuracy` on test after the last epoch (no epoch is selected), and the mean train loss of each epoch.

    `ranked` int64[N, min(5, C)] contains the most likely labels of the test images, best first. `learning_rate` is the one
    that was given, or chosen on train.
    """

    accuracy: float
    losses: tuple[float, ...]
    protocol: str
    detail: str
    ranked: Tensor = field(compare=False, repr=False)
    learning_rate: float


def finetune(
    backbone: nn.Module,
    train_pixels: Pixels,
    train_labels: NDArray[np.int64],
    test_pixels: Pixels,
    test_labels: NDArray[np.int64],
    *,
    size: int | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    learning_rate: float | tuple[float, ...] = 1e-3,
    holdout: float = HOLDOUT,
    weight_decay: float = 0.05,
    warmup: float = 0.1,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    momentum: float = 0.9,
    nesterov: bool = False,
    head_rate: float = 1.0,
    ema_decay: float | None = None,
    ema_warmup: bool = False,
    flip: bool = True,
    padding: int | None = None,
    crop_scale: tuple[float, float] | None = None,
    rand_augment_layers: int = 0,
    rand_augment_magnitude: float = 9.0,
    random_erasing: float = 0.0,
    layer_decay: float = 1.0,
    drop_path: float | None = None,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    label_smoothing: float = 0.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    precision: Precision = "fp32",
    interpolation: Interpolation = "bilinear",
    progress: Progress = SILENT,
) -> FinetuneResult:
    """Train a copy of the backbone and a linear head on all of train, then score test once; `backbone` is not changed.

    Images as in `extract_features`; all are kept in memory as bytes at `size`. The settings are those of `Finetune`.
    Order, flips and crops are pure functions of (seed, epoch, image); dropout inside the backbone draws from
    torch's generator, seeded here and restored. Raises ValueError for impossible settings, fewer than two classes, an empty
    test and multi-hot labels (`Finetune` takes these).
    """
    check_single_label("finetune", "Finetune", np.asarray(train_labels), np.asarray(test_labels))
    settings = FinetuneSettings(
        learning_rate,
        holdout,
        Optimization(
            epochs, batch_size, weight_decay, warmup, optimizer, momentum, nesterov, head_rate, ema_decay, ema_warmup
        ),
        FinetuneAugmentation(flip, padding, crop_scale, rand_augment_layers, rand_augment_magnitude, random_erasing),
        Regularization(layer_decay, drop_path, mixup, cutmix, label_smoothing),
        seed,
    )
    preprocessing = Preprocessing(size, device, mean, std, precision, interpolation)
    train, test = (train_pixels, train_labels), (test_pixels, test_labels)
    return _finetune(settings, backbone, *train, lambda: test, preprocessing, progress).result(np.asarray(test_labels))


@register("evaluator", "finetune")
class Finetune(Evaluator):
    """Fine-tuning of all weights: accuracy, top-5 accuracy (more than five classes) and balanced accuracy.

    The learning rate rises linearly over the share `warmup` of the steps and falls to 0 by a cosine. Of several, each is first
    trained without the share `holdout` of train and the one that is best there is trained on all of train.
    `weight_decay` to `ema_warmup` are those of `Optimization`, `flip` to `random_erasing` those of `FinetuneAugmentation`,
    `layer_decay` to `label_smoothing` those of `Regularization`. No epoch is selected: test is read after the last one.
    With multi-hot labels: binary cross entropy for each class, mean and micro average precision.
    """

    needs = "images"
    multi_label = True

    def __init__(
        self,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        learning_rate: float | tuple[float, ...] = 1e-3,
        holdout: float = HOLDOUT,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        momentum: float = 0.9,
        nesterov: bool = False,
        head_rate: float = 1.0,
        ema_decay: float | None = None,
        ema_warmup: bool = False,
        flip: bool = True,
        padding: int | None = None,
        crop_scale: tuple[float, float] | None = None,
        rand_augment_layers: int = 0,
        rand_augment_magnitude: float = 9.0,
        random_erasing: float = 0.0,
        layer_decay: float = 1.0,
        drop_path: float | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.settings = FinetuneSettings(
            learning_rate,
            holdout,
            Optimization(
                epochs,
                batch_size,
                weight_decay,
                warmup,
                optimizer,
                momentum,
                nesterov,
                head_rate,
                ema_decay,
                ema_warmup,
            ),
            FinetuneAugmentation(
                flip, padding, crop_scale, rand_augment_layers, rand_augment_magnitude, random_erasing
            ),
            Regularization(layer_decay, drop_path, mixup, cutmix, label_smoothing),
            seed,
        )

    def check_network(self, backbone: nn.Module, size: int | None) -> None:
        self.settings.check_network(backbone, size)

    def __call__(self, train: LabeledImages, test: HeldOut[LabeledImages]) -> list[Score]:
        labels: list[Labels] = []

        def read() -> tuple[NDArray[np.uint8], Labels]:
            held = test.read()
            labels.append(held.y)
            return held.pixels, held.y

        tuned = _finetune(
            self.settings, train.backbone, train.pixels, train.y, read, train.preprocessing, self.progress
        )
        detail = joined(tuned.detail, unseen_words(train.y, labels[0], train.class_names))
        held = torch.from_numpy(labels[0])
        if train.multi_label:
            return multi_label_scores(tuned.logits, held, detail, self.progress)
        predictions = Predictions(held, ranked_classes(tuned.logits, tuned.classes), tuned.logits, tuned.classes)
        return predicted_scores(predictions, len(tuned.classes), detail)

    def describe(self) -> str:
        return self.settings.describe()


@dataclass(frozen=True)
class _Tuned:
    """What a fine-tuned network says of test: `logits` float[N, C], for the train labels `classes` int64[C] or multi-hot."""

    logits: Tensor
    classes: Tensor
    losses: tuple[float, ...]
    protocol: str
    learning_rate: float
    chosen: str

    @property
    def detail(self) -> str:
        losses = f"mean train loss {self.losses[0]:.3f} in the first epoch, {self.losses[-1]:.3f} in the last"
        return joined(self.chosen, losses)

    def result(self, test_labels: NDArray[np.int64]) -> FinetuneResult:
        ranked = ranked_classes(self.logits, self.classes)
        accuracy = int((ranked[:, 0].numpy() == test_labels).sum()) / len(test_labels)
        return FinetuneResult(accuracy, self.losses, self.protocol, self.detail, ranked, self.learning_rate)


def _finetune(
    settings: FinetuneSettings,
    backbone: nn.Module,
    train_pixels: Pixels,
    train_labels: Labels,
    read_test: Callable[[], tuple[Pixels, Labels]],
    preprocessing: Preprocessing,
    progress: Progress,
) -> _Tuned:
    """Choose the learning rate, train with it on all of train, then read test and score it."""
    device = torch.device(preprocessing.device) if preprocessing.device is not None else device_of(backbone)
    classes, targets = _targets(np.asarray(train_labels))
    if targets.ndim == 2 and settings.regularization.label_smoothing:
        raise ValueError("label_smoothing is for one label per image, and these are multi-hot: set it to 0")
    train = TrainImages(_as_bytes(train_pixels, preprocessing, device), targets.to(device), len(classes))
    settings.augmentation.check_channels(train.images.shape[1])
    training = FinetuneTraining(
        settings, preprocessing, lambda step, steps: _warm_cosine(step, steps, settings.optimization.warmup), progress
    )
    rate, chosen = settings.rates[0], ""
    if len(settings.rates) > 1:
        rate, chosen = choose_learning_rate(training, backbone, train)
    network, losses = training.train(backbone, train, rate)
    test_pixels, test_labels = read_test()
    check_test(test_labels)
    logits = training.logits(network, _as_bytes(test_pixels, preprocessing, device), "test images")
    return _Tuned(logits, classes, losses, settings.describe(train.images.shape[2]), rate, chosen)


def _targets(labels: Labels) -> tuple[Tensor, Tensor]:
    """The classes int64[C] and the targets of the train images. Raises ValueError for fewer than two classes."""
    if labels.ndim == 2:
        targets = torch.as_tensor(labels).float()
        check_multi_hot(targets)
        return torch.arange(labels.shape[1]), targets
    classes, targets = torch.unique(torch.as_tensor(labels, dtype=torch.int64), return_inverse=True)
    if len(classes) < 2 or classes[0] < 0:
        raise ValueError("fine-tuning needs labeled train images of at least two classes")
    return classes, targets


def _as_bytes(pixels: Pixels, preprocessing: Preprocessing, device: torch.device, chunk: int = 1024) -> Tensor:
    """All images, resized and cropped, as uint8[N, 3, S, S] on the device."""
    size, interpolation = preprocessing.size, preprocessing.interpolation
    if size is None and not isinstance(pixels, np.ndarray):
        pixels = np.stack(pixels)
    parts = (pixels[i : i + chunk] for i in range(0, len(pixels), chunk))
    return torch.cat([resize_center_crop(p, size, device, interpolation).mul_(255).round_().byte() for p in parts])


def _warm_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: linear to 1 over the share `warmup` of the steps, then a cosine to 0."""
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising)))
