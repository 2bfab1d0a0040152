"""Short supervised fine-tuning of a copy of the backbone: AdamW, warm-up and cosine, flips and padded crops."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.registry import register
from wildfern.ssl.evaluation.average_precision import multi_label_scores
from wildfern.ssl.evaluation.evaluator import Evaluator, HeldOut, LabeledImages, Score, check_single_label, check_test
from wildfern.ssl.evaluation.features import device_of, frozen
from wildfern.ssl.evaluation.finetune_regularization import Regularization
from wildfern.ssl.evaluation.label_counts import unseen_words
from wildfern.ssl.evaluation.labeled_chunks import Labels
from wildfern.ssl.evaluation.metrics import classification_scores, joined, ranked_classes
from wildfern.ssl.evaluation.multi_label_probe import check_multi_hot
from wildfern.ssl.evaluation.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Pixels,
    Precision,
    normalized,
    resize_center_crop,
)
from wildfern.ssl.tracking.progress import SILENT, Progress


@dataclass(frozen=True)
class FinetuneResult:
    """`accuracy` on test after the last epoch (no epoch is selected), and the mean train loss of each epoch.

    `ranked` int64[N, min(5, C)] contains the most likely labels of the test images, best first.
    """

    accuracy: float
    losses: tuple[float, ...]
    protocol: str
    detail: str
    ranked: Tensor = field(compare=False, repr=False)


def flip_and_crop(images: Tensor, draws: NDArray[np.float64], padding: int, flip: bool = True) -> Tensor:
    """Mirror each of float[N, 3, S, S] half the time (`flip`) and shift it by up to `padding` pixels, edges reflected.

    draws: float64[N, 3] in [0, 1), for flip, vertical and horizontal shift.
    """
    size = images.shape[2]
    line = torch.arange(size, device=images.device)
    shift = torch.from_numpy((draws[:, 1:] * (2 * padding + 1)).astype(np.int64)).to(images.device)
    mirrored = torch.from_numpy(draws[:, :1] < 0.5 * flip).to(images.device)
    columns = torch.where(mirrored, line.flip(0), line) + shift[:, 1:]
    rows = line + shift[:, :1]
    padded = F.pad(images, (padding,) * 4, mode="reflect")
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


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
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    warmup: float = 0.1,
    flip: bool = True,
    padding: int | None = None,
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
    progress: Progress = SILENT,
) -> FinetuneResult:
    """Train a copy of the backbone and a linear head on all of train, then score test once; `backbone` is not changed.

    Images as in `extract_features`; all are kept in memory as bytes at `size`. The learning rate rises over the share
    `warmup` of the steps and falls to 0 by a cosine; `padding` is the largest shift of a crop in pixels (default: size // 8).
    `layer_decay` to `label_smoothing` are those of `Regularization`; MAE (He et al., 2022) uses all of them.
    Order, flips and crops are pure functions of (seed, epoch, image); dropout inside the backbone draws from
    torch's generator, seeded here and restored. Raises ValueError for impossible settings, fewer than two classes, an empty
    test and multi-hot labels (`Finetune` takes these).
    """
    check_single_label("finetune", "Finetune", np.asarray(train_labels), np.asarray(test_labels))
    return _finetune(
        backbone,
        train_pixels,
        train_labels,
        lambda: (test_pixels, test_labels),
        size=size,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        flip=flip,
        padding=padding,
        regularization=Regularization(layer_decay, drop_path, mixup, cutmix, label_smoothing),
        seed=seed,
        device=device,
        mean=mean,
        std=std,
        precision=precision,
        progress=progress,
    ).result(np.asarray(test_labels))


@register("evaluator", "finetune")
class Finetune(Evaluator):
    """Fine-tuning of all weights: accuracy, top-5 accuracy (more than five classes) and balanced accuracy.

    Arguments as in `finetune`; test is read after the last epoch. With multi-hot labels: binary cross entropy for each
    class, mean and micro average precision.
    """

    needs = "images"
    multi_label = True

    def __init__(
        self,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        flip: bool = True,
        padding: int | None = None,
        layer_decay: float = 1.0,
        drop_path: float | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        _check(epochs, batch_size, learning_rate, weight_decay, warmup, padding)
        self.options = {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "warmup": warmup,
            "flip": flip,
            "padding": padding,
            "regularization": Regularization(layer_decay, drop_path, mixup, cutmix, label_smoothing),
            "seed": seed,
        }

    def check_network(self, backbone: nn.Module, size: int | None) -> None:
        padding, regularization = self.options["padding"], self.options["regularization"]
        if None not in (padding, size) and padding >= size:
            raise ValueError(f"padding {padding} must be less than the {size} px of the images")
        if regularization.drop_path is not None or regularization.layer_decay != 1.0:
            model = copy.deepcopy(backbone)
            regularization.set_drop_path(model)
            regularization.optimizer_groups(model, nn.Linear(1, 1), 0.0)

    def __call__(self, train: LabeledImages, test: HeldOut[LabeledImages]) -> list[Score]:
        labels: list[Labels] = []

        def read() -> tuple[NDArray[np.uint8], Labels]:
            held = test.read()
            labels.append(held.y)
            return held.pixels, held.y

        # The images are resized already.
        settings = {name: value for name, value in vars(train.preprocessing).items() if name != "interpolation"}
        options = {**settings, **self.options}
        tuned = _finetune(train.backbone, train.pixels, train.y, read, **options, progress=self.progress)
        detail = joined(tuned.detail, unseen_words(train.y, labels[0], train.class_names))
        if train.multi_label:
            return multi_label_scores(tuned.logits.float(), torch.from_numpy(labels[0]), detail, self.progress)
        result = tuned.result(labels[0])
        return classification_scores(result.ranked, torch.from_numpy(labels[0]), len(np.unique(train.y)), detail)

    def describe(self) -> str:
        return _words(**{name: self.options[name] for name in WORDED})


@dataclass(frozen=True)
class _Tuned:
    """What a fine-tuned network says of test: `logits` float[N, C], for the train labels `classes` int64[C] or multi-hot."""

    logits: Tensor
    classes: Tensor
    losses: tuple[float, ...]
    protocol: str

    @property
    def detail(self) -> str:
        return f"mean train loss {self.losses[0]:.3f} in the first epoch, {self.losses[-1]:.3f} in the last"

    def result(self, test_labels: NDArray[np.int64]) -> FinetuneResult:
        ranked = ranked_classes(self.logits, self.classes)
        right = int((ranked[:, 0].numpy() == test_labels).sum())
        return FinetuneResult(right / len(test_labels), self.losses, self.protocol, self.detail, ranked)


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


def _finetune(
    backbone: nn.Module,
    train_pixels: Pixels,
    train_labels: Labels,
    read_test: Callable[[], tuple[Pixels, Labels]],
    *,
    size: int | None,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    warmup: float,
    flip: bool,
    padding: int | None,
    regularization: Regularization,
    seed: int,
    device: torch.device | str | None,
    mean: Sequence[float],
    std: Sequence[float],
    precision: Precision,
    progress: Progress,
) -> _Tuned:
    """`finetune`, with test read after the last epoch."""
    _check(epochs, batch_size, learning_rate, weight_decay, warmup, padding)
    device = torch.device(device) if device is not None else device_of(backbone)
    classes, targets = _targets(np.asarray(train_labels))
    multi_label = targets.ndim == 2
    if multi_label and regularization.label_smoothing:
        raise ValueError("label_smoothing is for one label per image, and these are multi-hot: set it to 0")
    train_bytes, targets = _as_bytes(train_pixels, size, device), targets.to(device)
    padding = train_bytes.shape[2] // 8 if padding is None else padding

    forked = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=forked):
        torch.manual_seed(seed)
        model = copy.deepcopy(backbone).to(device).requires_grad_(True)
        regularization.set_drop_path(model)
        with frozen(model):
            width = model(normalized(train_bytes[:1].float() / 255, mean, std)).shape[1]
        head = nn.Linear(width, len(classes), device=device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        network = nn.Sequential(model, head).train()
        optimizer = torch.optim.AdamW(regularization.optimizer_groups(model, head, weight_decay), lr=learning_rate)
        batches = max(
            1, len(targets) // batch_size
        )  # the last, partial batch is dropped; the order differs between epochs
        losses = []
        for epoch in range(epochs):
            order = uniform(fold(np.uint64(key("finetune order", seed, epoch)), np.arange(len(targets))), 1)[
                :, 0
            ].argsort()
            crop_key = np.uint64(key("finetune crop", seed, epoch))
            total = torch.zeros((), device=device)
            of_epochs = f"epoch {epoch + 1} of {epochs}"
            for batch in range(batches):
                progress.count(epoch * batches + batch, epochs * batches, "batches", of_epochs)
                index = order[batch * batch_size : (batch + 1) * batch_size]
                step = epoch * batches + batch
                rate = _warm_cosine(step, epochs * batches, warmup) * learning_rate
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["lr_factor"]
                picked = torch.from_numpy(index).to(device)
                images = normalized(train_bytes[picked].float() / 255, mean, std)
                images = flip_and_crop(images, uniform(fold(crop_key, index), 3), padding, flip)
                images, wanted = regularization.mixed(images, targets[picked], len(classes), seed, step)
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    loss = regularization.loss(_forward(network, images).float(), wanted, multi_label)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
            losses.append(total.item() / batches)
            if not math.isfinite(losses[-1]):
                raise ValueError(
                    f"fine-tuning diverged: the train loss is {losses[-1]} in epoch {epoch + 1} of {epochs}; lower learning_rate"
                    ", or check that the backbone's weights are finite"
                )

    test_pixels, test_labels = read_test()
    check_test(test_labels)
    test_bytes = _as_bytes(test_pixels, size, device)
    logits = []
    with frozen(network), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(test_bytes), batch_size):
            progress.count(start, len(test_bytes), "test images", "")
            images = normalized(test_bytes[start : start + batch_size].float() / 255, mean, std)
            logits.append(network(images).cpu())
    words = _words(epochs, learning_rate, weight_decay, flip, padding, regularization)
    return _Tuned(torch.cat(logits), classes, tuple(losses), words)


def _forward(network: nn.Module, images: Tensor) -> Tensor:
    """The logits in training mode. Batch normalization of one image and one position has no variance: ValueError."""
    try:
        return network(images)
    except ValueError as error:
        if len(images) > 1 or not any(isinstance(module, _BatchNorm) for module in network.modules()):
            raise
        message = (
            "batch_size: 1 is too small to fine-tune this backbone: its batch normalization needs 2 or more images"
        )
        raise ValueError(message) from error


MOST_PADDING = 128
WORDED = ("epochs", "learning_rate", "weight_decay", "flip", "padding", "regularization")


def _words(
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    flip: bool,
    padding: int | None,
    regularization: Regularization,
) -> str:
    shift = "an eighth of their size" if padding is None else f"{padding} px"
    images = f"{'flips and ' if flip else ''}crops padded by {shift}"
    settings = f"AdamW, rate {learning_rate:g}, weight decay {weight_decay:g}, cosine, {images}"
    if further := regularization.describe():
        settings += f", {further}"
    tuned = f"all weights fine-tuned for {epochs} epoch{'s' * (epochs > 1)} on all of train"
    return f"{tuned} ({settings}), accuracy after the last epoch"


def _check(
    epochs: int, batch_size: int, learning_rate: float, weight_decay: float, warmup: float, padding: int | None
) -> None:
    if epochs < 1 or batch_size < 1 or not learning_rate > 0 or not weight_decay >= 0 or not 0 <= warmup < 1:
        raise ValueError(
            "fine-tuning needs epochs >= 1, batch_size >= 1, learning_rate > 0, weight_decay >= 0 and a warmup in [0, 1)"
        )
    if padding is not None and not 0 <= padding <= MOST_PADDING:
        raise ValueError(f"padding is the largest shift of a crop, 0 to {MOST_PADDING} pixels, got {padding}")


def _as_bytes(pixels: Pixels, size: int | None, device: torch.device, chunk: int = 1024) -> Tensor:
    """All images, resized and cropped, as uint8[N, 3, S, S] on the device."""
    if size is None and not isinstance(pixels, np.ndarray):
        pixels = np.stack(pixels)
    parts = range(0, len(pixels), chunk)
    return torch.cat([resize_center_crop(pixels[i : i + chunk], size, device).mul_(255).round_().byte() for i in parts])


def _warm_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: linear to 1 over the share `warmup` of the steps, then a cosine to 0."""
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising)))
