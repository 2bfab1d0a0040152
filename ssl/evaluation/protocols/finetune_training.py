"""The training loop of fine-tuning: a copy of the backbone and a linear head, all weights, every step a function of the seed."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.ssl.evaluation.features import frozen
from wildfern.ssl.evaluation.preprocessing import Preprocessing, normalized
from wildfern.ssl.evaluation.protocols.finetune_settings import FinetuneSettings
from wildfern.ssl.tracking.progress import Progress

Schedule = Callable[[int, int], float]  # (step, steps) -> factor of the learning rate


class Diverged(ValueError):
    """The train loss, the weights or what the network returns is not finite."""


@dataclass(frozen=True)
class TrainImages:
    """Images uint8[N, C, S, S] and targets on one device: int64[N] in [0, classes), or multi-hot float32[N, classes]."""

    images: Tensor
    targets: Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: Tensor) -> "TrainImages":
        return TrainImages(self.images[index], self.targets[index], self.classes)


@dataclass(frozen=True)
class FinetuneTraining:
    """How networks are trained and scored; of `preprocessing`, size and device are not used."""

    settings: FinetuneSettings
    preprocessing: Preprocessing
    schedule: Schedule
    progress: Progress

    def train(
        self, backbone: nn.Module, train: TrainImages, learning_rate: float, what: str = ""
    ) -> tuple[nn.Module, tuple[float, ...]]:
        """The network to score and the mean loss of each epoch; `what` starts the progress. Raises `Diverged`.

        Order and augmentation are pure functions of (seed, epoch, image); dropout draws from torch's generator, seeded here
        and restored. The last, partial batch of an epoch is dropped; the order differs between epochs.
        """
        device, settings = train.images.device, self.settings.optimization
        with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
            torch.manual_seed(self.settings.seed)
            network = self._network(backbone, train)
            groups = self.settings.regularization.optimizer_groups(
                network[0], network[1], settings.weight_decay, settings.head_rate
            )
            optimizer = settings.build(groups, learning_rate)
            average = None
            if settings.ema_decay is not None:
                average = ModelEmaV3(network, settings.ema_decay, use_warmup=settings.ema_warmup, exclude_buffers=True)
            batches = max(1, len(train) // settings.batch_size)
            losses: list[float] = []
            for epoch in range(settings.epochs):
                order = self._order(epoch, len(train))
                total = torch.zeros((), device=device)
                for batch in range(batches):
                    step, steps = epoch * batches + batch, settings.epochs * batches
                    self.progress.count(step, steps, "batches", f"{what}epoch {epoch + 1} of {settings.epochs}")
                    rate = self.schedule(step, steps) * learning_rate
                    for group in optimizer.param_groups:
                        group["lr"] = rate * group["lr_factor"]
                    index = order[batch * settings.batch_size : (batch + 1) * settings.batch_size]
                    loss = self._loss(network, train, index, epoch, step)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    if average is not None:
                        # timm counts updates only for the warm-up, and then copies the weights in the first one.
                        average.update(network, step=step + 1 if settings.ema_warmup else None)
                    total += loss.detach()
                losses.append(total.item() / batches)
                if not math.isfinite(losses[-1]):
                    raise self._diverged(f"train loss is {losses[-1]} in epoch {epoch + 1} of {settings.epochs}")
        scored = network if average is None else average.module
        if not all(bool(parameter.isfinite().all()) for parameter in scored.parameters()):
            raise self._diverged("weights are not finite after the last step")
        return scored, tuple(losses)

    def logits(self, network: nn.Module, images: Tensor, what: str) -> Tensor:
        """float32[N, classes] on the CPU, for images uint8[N, C, S, S] without augmentation. `Diverged` if not finite."""
        found = []
        with frozen(network), self._autocast(images.device):
            for start in range(0, len(images), self.settings.optimization.batch_size):
                self.progress.count(start, len(images), what, "")
                part = images[start : start + self.settings.optimization.batch_size].float() / 255
                found.append(network(normalized(part, self.preprocessing.mean, self.preprocessing.std)).float().cpu())
        logits = torch.cat(found)
        if not logits.isfinite().all():
            raise self._diverged(f"fine-tuned network returns NaN or infinity for {what}")
        return logits

    def _network(self, backbone: nn.Module, train: TrainImages) -> nn.Sequential:
        model = copy.deepcopy(backbone).to(train.images.device).requires_grad_(True)
        self.settings.regularization.set_drop_path(model)
        with frozen(model):
            images = normalized(train.images[:1].float() / 255, self.preprocessing.mean, self.preprocessing.std)
            width = model(images).shape[1]
        head = nn.Linear(width, train.classes, device=train.images.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return nn.Sequential(model, head).train()

    def _order(self, epoch: int, images: int) -> NDArray[np.int64]:
        draws = uniform(fold(np.uint64(key("finetune order", self.settings.seed, epoch)), np.arange(images)), 1)
        return draws[:, 0].argsort()

    def _loss(self, network: nn.Module, train: TrainImages, index: NDArray[np.int64], epoch: int, step: int) -> Tensor:
        picked = torch.from_numpy(index).to(train.images.device)
        images = self.settings.augmentation(train.images[picked], index, self.settings.seed, epoch, self.preprocessing)
        images, wanted = self.settings.regularization.mixed(
            images, train.targets[picked], train.classes, self.settings.seed, step
        )
        with self._autocast(images.device):
            return self.settings.regularization.loss(_forward(network, images).float(), wanted, train.targets.ndim == 2)

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.preprocessing.precision == "bf16")

    def _diverged(self, what: str) -> Diverged:
        return Diverged(
            f"fine-tuning diverged: the {what}; lower learning_rate, or check that the backbone's weights are finite"
        )


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
